"""Rebuilds the State from its stored documents after a restart."""

from __future__ import annotations

from fs_dropbox.emulator.model.state import State
from fs_dropbox.emulator.model.tree import Entry, File, Folder, Namespace, Revision, Tombstone


def load(state: State) -> None:
    """Fill an empty State from its storage and remove what a kill left behind."""
    roots = {}
    for key, document in state.storage.load("namespace"):
        root = document.pop("root")
        forgotten = document.pop("forgotten_sequence")
        namespace = Namespace(**document)
        namespace.forgotten_sequence = forgotten
        state.namespaces[key] = namespace
        roots[root] = namespace
    for _, document in state.storage.load("revision"):
        revision = Revision(**document)
        state.contents.reference(revision.content_hash, revision.size)
        state.sequence = max(state.sequence, int(revision.rev[:15], 16))
        state.revisions[revision.rev] = revision
    for revision in sorted(state.revisions.values(), key=lambda known: known.rev[:15]):
        state.register_revision(revision)
    _load_entries(state, roots)
    for _, document in state.storage.load("tombstone"):
        parent, _, name_key = document["path"].rpartition("/")
        namespace = state.namespaces[document["namespace"]]
        namespace.tombstones.setdefault(parent, {})[name_key] = Tombstone(*document["tombstone"])
    for namespace_id, change in state.storage.load_changes():
        state.namespaces[namespace_id].journal.append(change)
        state.sequence = max(state.sequence, change.sequence)
    for namespace in state.namespaces.values():
        namespace.used_bytes = namespace.root.total_bytes()


def _load_entries(state: State, roots: dict[str, Namespace]) -> None:
    parents: list[tuple[Entry, str]] = []
    for key, document in state.storage.load("entry"):
        entry: Entry
        if "rev" in document:
            # The parent is not known yet: attach() sets it below.
            entry = File(key, document["name"], None, state.revisions[document["rev"]])  # type: ignore[arg-type]
        else:
            entry = Folder(key, document["name"], None, state.namespaces[document["namespace"]])
            if document["mount"] is not None:
                entry.mount = state.namespaces[document["mount"]]
                entry.mount.mounts.append(entry)
            if key in roots:
                roots[key].root = entry
        entry.extra = document.get("extra", {})
        state.entries[key] = entry
        if document["parent"] is not None:
            parents.append((entry, document["parent"]))
    for entry, parent_id in parents:
        parent = state.entries[parent_id]
        assert isinstance(parent, Folder)
        parent.attach(entry)
