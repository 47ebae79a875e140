"""The data of the tree: namespaces, folders, files, revisions, tombstones, the journal. No rules, no views, no I/O.

Everything here is guarded by the lock of the State that owns it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from fs_dropbox.emulator.model.names import fold


class Change(NamedTuple):
    """One journal record: something happened at this path of the namespace; deletions carry the path as displayed."""

    sequence: int
    key_path: str
    deleted_display: str | None


@dataclass(slots=True, frozen=True)
class Revision:
    """One version of a file at one place. A move makes a new one, too."""

    rev: str
    file_id: str
    namespace_id: str
    key_path: str
    name: str
    size: int
    content_hash: str
    client_modified: int
    server_modified: int

    def document(self) -> dict[str, Any]:
        """Return what is stored."""
        return asdict(self)


class Tombstone(NamedTuple):
    """What is left of a deleted entry: its name as displayed; the revision of a file; when it went."""

    name: str
    display_path: str
    rev: str | None
    deleted_at: int


class Entry:
    """A file or a folder; `parent` is None only for the root of a namespace."""

    __slots__ = ("extra", "id", "key", "name", "parent")

    def __init__(self, entry_id: str, name: str, parent: Folder | None) -> None:
        self.id = entry_id
        self.name = name
        self.key = fold(name)
        self.parent = parent
        self.extra: dict[str, Any] = {}

    @property
    def namespace(self) -> Namespace:
        """The namespace in which the entry lies; for a mounted folder the one in which it is mounted."""
        raise NotImplementedError

    def key_path(self) -> str:
        """Return the lookup path within the namespace; "" is its root."""
        return "".join("/" + node.key for node in reversed(list(self._ancestry())))

    def display_path(self) -> str:
        """Return the path within the namespace in the case of the names."""
        return "".join("/" + node.name for node in reversed(list(self._ancestry())))

    def _ancestry(self) -> Iterator[Entry]:
        node: Entry = self
        while node.parent is not None:
            yield node
            node = node.parent

    def nodes(self) -> Iterator[Entry]:
        """Yield the entry and all below it in its namespace, parents first; does not enter mounted namespaces."""
        yield self

    def total_bytes(self) -> int:
        """Return the size of the files among nodes()."""
        return sum(node.revision.size for node in self.nodes() if isinstance(node, File))

    def rename(self, name: str) -> None:
        """Change name and key; the owner keeps the parent's table of children right."""
        self.name = name
        self.key = fold(name)

    def document(self) -> dict[str, Any]:
        """Return what is stored; `extra` is for what further modules attach and is kept as it is."""
        parent = self.parent.id if self.parent is not None else None
        document: dict[str, Any] = {"id": self.id, "name": self.name, "parent": parent}
        if self.extra:
            document["extra"] = self.extra
        return document


class File(Entry):
    """A file: its current revision. What is not an ordinary file says so in `extra`."""

    __slots__ = ("revision",)

    def __init__(self, entry_id: str, name: str, parent: Folder, revision: Revision) -> None:
        super().__init__(entry_id, name, parent)
        self.revision = revision

    @property
    def namespace(self) -> Namespace:
        """The namespace of the folder."""
        assert self.parent is not None
        return self.parent.namespace

    def document(self) -> dict[str, Any]:
        """Return what is stored."""
        return {**super().document(), "rev": self.revision.rev}


class Folder(Entry):
    """A folder; with `mount` set it shows the root of another namespace and has no children of its own."""

    __slots__ = ("_namespace", "_order", "children", "mount")

    def __init__(self, entry_id: str, name: str, parent: Folder | None, namespace: Namespace) -> None:
        super().__init__(entry_id, name, parent)
        self._namespace = namespace
        self.children: dict[str, Entry] = {}
        self.mount: Namespace | None = None
        self._order: list[str] | None = None

    @property
    def namespace(self) -> Namespace:
        """The namespace in which the folder lies."""
        return self._namespace

    @property
    def inner(self) -> Folder:
        """The folder that holds the children: the root of the mounted namespace, or the folder itself."""
        return self.mount.root if self.mount is not None else self

    def order(self) -> list[str]:
        """Return the sorted keys of the children: the order of listings, so that pages can go on after a key."""
        if self._order is None:
            self._order = sorted(self.children)
        return self._order

    def attach(self, entry: Entry) -> None:
        """Put an entry into this folder."""
        entry.parent = self
        self.children[entry.key] = entry
        self._order = None
        if isinstance(entry, Folder):
            entry._join(self._namespace)

    def detach(self, entry: Entry) -> None:
        """Take an entry out of this folder."""
        del self.children[entry.key]
        self._order = None

    def _join(self, namespace: Namespace) -> None:
        if self._namespace is not namespace:
            self._namespace = namespace
            for child in self.children.values():
                if isinstance(child, Folder):
                    child._join(namespace)

    def nodes(self) -> Iterator[Entry]:
        """Yield the folder and all below it."""
        yield self
        for child in self.children.values():
            yield from child.nodes()

    def document(self) -> dict[str, Any]:
        """Return what is stored."""
        mount = self.mount.id if self.mount is not None else None
        return {**super().document(), "namespace": self._namespace.id, "mount": mount}


@dataclass(slots=True)
class Namespace:
    """A tree with its own journal and write lock: a home, an app folder, a shared folder, a team's root."""

    id: str
    kind: str  # "home", "app_folder", "shared_folder", "team_folder", "team_root"
    name: str
    owner: str | None = None  # account id
    members: dict[str, str] = field(default_factory=dict)  # account id -> owner, editor, viewer, viewer_no_comment
    extra: dict[str, Any] = field(default_factory=dict)
    root: Folder = field(init=False)
    mounts: list[Folder] = field(default_factory=list)
    journal: list[Change] = field(default_factory=list)
    forgotten_sequence: int = 0  # journal records up to here are gone: older cursors must reset
    tombstones: dict[str, dict[str, Tombstone]] = field(default_factory=dict)  # parent's key path -> key -> tombstone
    used_bytes: int = 0

    @property
    def is_shared(self) -> bool:
        """Tell whether it is a folder of several people: a shared folder or a team folder."""
        return self.kind in ("shared_folder", "team_folder")

    def document(self) -> dict[str, Any]:
        """Return what is stored; tree, journal and tombstones are stored on their own."""
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "owner": self.owner,
            "members": self.members,
            "extra": self.extra,
            "root": self.root.id,
            "forgotten_sequence": self.forgotten_sequence,
        }

    def tombstone(self, key_path: str) -> Tombstone | None:
        """Return the tombstone at a path, if something was deleted there and nothing has taken the place."""
        parent, _, key = key_path.rpartition("/")
        return self.tombstones.get(parent, {}).get(key)
