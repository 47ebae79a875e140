"""The emulator's data and the primitives that change it: each keeps tree, revisions, tombstones, journal, disk in step.

Knows no rules about who may do what: see mutations.py. Knows no HTTP.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from fs_dropbox.emulator.model.contents import Contents
from fs_dropbox.emulator.model.options import Options
from fs_dropbox.emulator.model.storage import Collection, Storage
from fs_dropbox.emulator.model.tree import Change, Entry, File, Folder, Namespace, Revision, Tombstone

JOURNAL_RECORDS = 200_000  # kept for each namespace; cursors older than that must reset


class State:
    """Everything that the service knows, for all accounts. Owner: Emulator.

    `lock` guards all of it (reentrant). Changes happen inside mutation(), which makes them durable at its end and
    wakes whoever waits on `changed`. Checks come first, changes after them: a failure never leaves half a change.
    """

    def __init__(self, folder: Path | None, clock: Callable[[], float], options: Options) -> None:
        self.clock = clock
        self.options = options
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.storage = Storage(folder / "emulator.sqlite" if folder is not None else None)
        self.contents = Contents(folder)
        # guarded by lock
        self.sequence = 0  # grows with every journal record and revision, in all namespaces together
        self.namespaces: dict[str, Namespace] = {}
        self.entries: dict[str, Entry] = {}
        self.revisions: dict[str, Revision] = {}
        self.path_history: dict[tuple[str, str], list[Revision]] = {}  # (namespace id, key path), oldest first
        self.file_history: dict[str, list[Revision]] = {}
        self._depth = 0
        self._collections: dict[str, Collection] = {}

    # Transactions -----------------------------------------------------------

    @contextmanager
    def mutation(self) -> Iterator[None]:
        """Hold the lock for a change; at the end store it and wake those who wait for changes."""
        with self.lock:
            before = self.sequence
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.storage.flush()
                if self.sequence != before:
                    self.changed.notify_all()

    def collection(self, kind: str) -> Collection:
        """Return the stored table of this name: plain JSON documents of a further module."""
        with self.lock:
            if kind not in self._collections:
                self._collections[kind] = Collection(self.storage, kind)
            return self._collections[kind]

    def now(self) -> int:
        """Return the time in the resolution of the service: whole seconds since 1970."""
        return int(self.clock())

    def new_id(self) -> str:
        """Return a new entry id."""
        return "id:" + secrets.token_urlsafe(16)

    def close(self) -> None:
        """Store the rest and release disk and memory."""
        with self.lock:
            self.storage.close()
            self.contents.close()

    # Namespaces -------------------------------------------------------------

    def add_namespace(self, kind: str, name: str, owner: str | None) -> Namespace:
        """Create an empty namespace; who owns it is its first member."""
        number = max((int(known) for known in self.namespaces), default=1_000_000_000) + 1
        namespace = Namespace(str(number), kind, name, owner)
        if owner is not None:
            namespace.members[owner] = "owner"
        namespace.root = Folder(self.new_id(), "", None, namespace)
        self.namespaces[namespace.id] = namespace
        self.entries[namespace.root.id] = namespace.root
        self._store_entry(namespace.root)
        self.store_namespace(namespace)
        return namespace

    def store_namespace(self, namespace: Namespace) -> None:
        """Store a namespace after its members or extras were changed."""
        self.storage.put("namespace", namespace.id, namespace.document)

    def mount(self, namespace: Namespace, parent: Folder, name: str) -> Folder:
        """Show a namespace as a folder of another one."""
        folder = Folder(self.new_id(), name, parent, parent.namespace)
        folder.mount = namespace
        namespace.mounts.append(folder)
        self._appear(folder, parent)
        self.report_mounted(folder)
        return folder

    def report_mounted(self, folder: Folder) -> None:
        """Report all that has become visible in a namespace by a folder that shows another one."""
        if folder.mount is not None:
            prefix = folder.key_path()
            for _, key_path, _ in islice(walk_paths(folder.mount.root, "", ""), 1, None):
                self._journal(folder.namespace, prefix + key_path)

    # Entries ----------------------------------------------------------------

    def add_folder(self, parent: Folder, name: str) -> Folder:
        """Create a folder in a folder."""
        folder = Folder(self.new_id(), name, parent, parent.namespace)
        self._appear(folder, parent)
        return folder

    def add_file(
        self, parent: Folder, name: str, content_hash: str, size: int, client_modified: int, entry_id: str | None = None
    ) -> File:
        """Create a file in a folder; restoring one gives its old id."""
        file = File(entry_id or self.new_id(), name, parent, NO_REVISION)
        self._revise(file, parent, content_hash, size, client_modified)
        self._appear(file, parent)
        return file

    def set_content(self, file: File, content_hash: str, size: int, client_modified: int) -> None:
        """Give a file a new revision."""
        file.namespace.used_bytes -= file.revision.size
        assert file.parent is not None
        self._revise(file, file.parent, content_hash, size, client_modified)
        file.namespace.used_bytes += size
        self.touch(file)

    def touch(self, entry: Entry) -> None:
        """Store an entry whose extras changed, and report it as changed."""
        self._store_entry(entry)
        self._journal(entry.namespace, entry.key_path())

    def report_deleted(self, entry: Entry) -> None:
        """Report an entry that stays as deleted; whatever it becomes is reported afterwards."""
        self._journal(entry.namespace, entry.key_path(), entry.display_path())

    def set_name(self, entry: Entry, name: str) -> None:
        """Change the case of a name in its place; what lies below has another path as displayed, and is reported."""
        entry.rename(name)
        self._store_entry(entry)
        if not self.options.report_case_changes:
            return
        for node, key_path, _ in walk_paths(entry, entry.key_path(), entry.display_path()):
            self._journal(entry.namespace, key_path)
            if isinstance(node, Folder):
                self.report_mounted(node)

    def remove(self, entry: Entry) -> None:
        """Delete an entry with everything below; a mounted folder only leaves the tree."""
        assert entry.parent is not None
        namespace = entry.namespace
        key_path, display_path = entry.key_path(), entry.display_path()
        for node, node_key, node_display in walk_paths(entry, key_path, display_path):
            self._bury(node, node_key, node_display)
            del self.entries[node.id]
            self.storage.delete("entry", node.id)
            if isinstance(node, File):
                namespace.used_bytes -= node.revision.size
            elif isinstance(node, Folder) and node.mount is not None:
                node.mount.mounts.remove(node)
            if self.options.delete_lists_children and node is not entry:
                self._journal(namespace, node_key, node_display)
        entry.parent.detach(entry)
        self._journal(namespace, key_path, display_path)

    def relocate(self, entry: Entry, parent: Folder, name: str) -> None:
        """Move an entry with everything below; ids stay, files get new revisions, times stay."""
        assert entry.parent is not None
        source = entry.namespace
        key_path, display_path = entry.key_path(), entry.display_path()
        nodes = list(walk_paths(entry, key_path, display_path))
        for node, node_key, node_display in nodes:
            self._bury(node, node_key, node_display)
            if isinstance(node, File):
                source.used_bytes -= node.revision.size
        entry.parent.detach(entry)
        self._journal(source, key_path, display_path)
        entry.rename(name)
        parent.attach(entry)
        target_key = entry.key_path()
        for node, node_key, _ in nodes:
            assert node.parent is not None
            if isinstance(node, File):
                old = node.revision
                self._revise(node, node.parent, old.content_hash, old.size, old.client_modified)
                parent.namespace.used_bytes += old.size
            self.forget_tombstone(parent.namespace, target_key + node_key[len(key_path) :])
            self._store_entry(node)
            self._journal(parent.namespace, target_key + node_key[len(key_path) :])
            if isinstance(node, Folder):
                self.report_mounted(node)

    def duplicate(self, entry: Entry, parent: Folder, name: str) -> Entry:
        """Copy an entry with everything below; new ids, times stay. Mounted folders become ordinary ones."""
        return self._put_copy(_Original(entry), parent, name)

    def _put_copy(self, original: _Original, parent: Folder, name: str) -> Entry:
        entry = original.entry
        if isinstance(entry, File):
            old = entry.revision
            copy = self.add_file(parent, name, old.content_hash, old.size, old.client_modified)
            copy.extra = {key: value for key, value in entry.extra.items() if key not in ("lock", "created_at")}
            self._store_entry(copy)
            return copy
        folder = self.add_folder(parent, name)
        for child in original.children:
            self._put_copy(child, folder, child.entry.name)
        return folder

    # Revisions --------------------------------------------------------------

    def forget_history(self, namespace: Namespace, key_path: str) -> None:
        """Drop all revisions at a path but those that are some file's current one."""
        self._forget_some(namespace.id, key_path, lambda _: True)

    def forget_older(self, oldest: float) -> None:
        """Drop the revisions that have been replaced or deleted and are older than the history window."""
        for (namespace_id, path), history in list(self.path_history.items()):
            if history[0].server_modified < oldest:
                self._forget_some(namespace_id, path, lambda revision: revision.server_modified < oldest)

    def _forget_some(self, namespace_id: str, key_path: str, is_over: Callable[[Revision], bool]) -> None:
        kept = []
        for revision in self.path_history.pop((namespace_id, key_path), []):
            file = self.entries.get(revision.file_id)
            if (isinstance(file, File) and file.revision is revision) or not is_over(revision):
                kept.append(revision)
            else:
                self._drop_revision(revision)
        if kept:
            self.path_history[namespace_id, key_path] = kept

    def _drop_revision(self, revision: Revision) -> None:
        del self.revisions[revision.rev]
        self.file_history[revision.file_id].remove(revision)
        self.storage.delete("revision", revision.rev)
        self.contents.release(revision.content_hash)

    def _revise(self, file: File, parent: Folder, content_hash: str, size: int, client_modified: int) -> None:
        namespace = parent.namespace
        self.sequence += 1
        revision = Revision(
            rev=f"{self.sequence:015x}{int(namespace.id):08x}",
            file_id=file.id,
            namespace_id=namespace.id,
            key_path=f"{parent.key_path()}/{file.key}",
            name=file.name,
            size=size,
            content_hash=content_hash,
            client_modified=client_modified,
            server_modified=self.now(),
        )
        self.contents.reference(content_hash, size)
        self.register_revision(revision)
        self.storage.put("revision", revision.rev, revision.document)
        file.revision = revision

    def is_kept(self, revision: Revision) -> bool:
        """Tell whether a revision is some file's current one, or within the history window."""
        file = self.entries.get(revision.file_id)
        if isinstance(file, File) and file.revision is revision:
            return True
        return revision.server_modified >= self.clock() - self.options.history_seconds

    def kept_revision(self, rev: str) -> Revision | None:
        """Return a revision that has not gone with time."""
        revision = self.revisions.get(rev)
        return revision if revision is not None and self.is_kept(revision) else None

    def register_revision(self, revision: Revision) -> None:
        """Enter a revision into the tables."""
        self.revisions[revision.rev] = revision
        self.path_history.setdefault((revision.namespace_id, revision.key_path), []).append(revision)
        self.file_history.setdefault(revision.file_id, []).append(revision)

    # Details ----------------------------------------------------------------

    def _appear(self, entry: Entry, parent: Folder) -> None:
        parent.attach(entry)
        self.entries[entry.id] = entry
        if isinstance(entry, File):
            parent.namespace.used_bytes += entry.revision.size
        if self.options.not_found_after_create_seconds:
            entry.extra["created_at"] = self.clock()
        key_path = entry.key_path()
        self.forget_tombstone(parent.namespace, key_path)
        self._store_entry(entry)
        self._journal(parent.namespace, key_path)

    def _bury(self, entry: Entry, key_path: str, display_path: str) -> None:
        rev = entry.revision.rev if isinstance(entry, File) else None
        parent, _, key = key_path.rpartition("/")
        tombstone = Tombstone(entry.name, display_path, rev, self.now())
        namespace = entry.namespace
        namespace.tombstones.setdefault(parent, {})[key] = tombstone
        document = {"namespace": namespace.id, "path": key_path, "tombstone": list(tombstone)}
        self.storage.put("tombstone", f"{namespace.id}{key_path}", lambda: document)

    def forget_tombstone(self, namespace: Namespace, key_path: str) -> None:
        """Remove the trace of something deleted, if there is one."""
        parent, _, key = key_path.rpartition("/")
        if namespace.tombstones.get(parent, {}).pop(key, None) is not None:
            self.storage.delete("tombstone", f"{namespace.id}{key_path}")

    def _store_entry(self, entry: Entry) -> None:
        self.storage.put("entry", entry.id, entry.document)

    def _journal(self, namespace: Namespace, key_path: str, deleted_display: str | None = None) -> None:
        self.sequence += 1
        change = Change(self.sequence, key_path, deleted_display)
        namespace.journal.append(change)
        self.storage.append_change(namespace.id, change)
        if len(namespace.journal) > JOURNAL_RECORDS * 5 // 4:
            namespace.forgotten_sequence = namespace.journal[-JOURNAL_RECORDS].sequence - 1
            del namespace.journal[:-JOURNAL_RECORDS]
            self.storage.forget_changes(namespace.id, namespace.forgotten_sequence)
            self.store_namespace(namespace)


class _Original:
    """What is to be copied as it is now: the copy may come to lie in it."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        below = entry.inner.children.values() if isinstance(entry, Folder) else ()
        self.children = [_Original(child) for child in below]


NO_REVISION = Revision("", "", "", "", "", 0, "", 0, 0)


def walk_paths(entry: Entry, key_path: str, display_path: str) -> Iterator[tuple[Entry, str, str]]:
    """Yield an entry and everything below it in its namespace, parents first, with key path and display path."""
    yield entry, key_path, display_path
    if isinstance(entry, Folder):
        for child in entry.children.values():
            yield from walk_paths(child, f"{key_path}/{child.key}", f"{display_path}/{child.name}")
