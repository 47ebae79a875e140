"""One account's look at the tree from one root: path strings to entries and back. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import PathLookupError, WriteError, conflict
from fs_dropbox.emulator.model.names import fold, split
from fs_dropbox.emulator.model.state import State
from fs_dropbox.emulator.model.tree import Entry, File, Folder, Namespace, Revision

WRITERS = ("owner", "editor")


@dataclass(slots=True, frozen=True)
class Target:
    """Where a write would go: the deepest folder there is, the folders still missing below it, the name in the last."""

    folder: Folder
    missing: tuple[str, ...]
    name: str
    existing: Entry | None

    @property
    def namespace(self) -> Namespace:
        """The namespace that the write changes."""
        return self.folder.inner.namespace

    @property
    def key_path(self) -> str:
        """The lookup path of the target within that namespace."""
        return self.folder.inner.key_path() + "".join("/" + fold(name) for name in (*self.missing, self.name))


class View:
    """Paths as a client sees them: relative to `root` (home, app folder, team root, a namespace). Needs State.lock."""

    def __init__(
        self,
        state: State,
        account: Account | None,
        root: Namespace,
        *,
        everything: bool = False,
        quota_left: Callable[[Namespace], int | None] | None = None,
    ) -> None:
        self.state = state
        self.account = account
        self.root = root
        self.quota_left = quota_left  # bytes that the owner of a namespace may still store; None: no limit
        self.sees_everything = everything  # an admin's look: no namespace is hidden

    # Access -----------------------------------------------------------------

    def can_see(self, namespace: Namespace) -> bool:
        """Tell whether the account is a member of the namespace."""
        if self.sees_everything or self.account is None:
            return True
        return self.account.account_id in namespace.members

    def can_write(self, namespace: Namespace) -> bool:
        """Tell whether the account may change the namespace."""
        if self.sees_everything or self.account is None:
            return True
        return namespace.members.get(self.account.account_id) in WRITERS

    def check_write(self, namespace: Namespace) -> None:
        """Raise no_write_permission unless the account may change the namespace."""
        if not self.can_write(namespace):
            raise WriteError("no_write_permission")

    def shows(self, entry: Entry) -> bool:
        """Tell whether an entry is shown: the homes of other members in a team's root are not."""
        return not (isinstance(entry, Folder) and entry.mount is not None and not self.can_see(entry.mount))

    # Paths to entries ---------------------------------------------------------

    def find(self, path: str) -> Entry:
        """Return the entry at an API path ("" is the root, id: and ns: work), or raise PathLookupError."""
        start, rest = self._start(path)
        return self._descend(start, split(rest, astral=self.state.options.astral_names))

    def find_file(self, path: str) -> tuple[File | None, Revision]:
        """Return the file at a path and its revision; for rev: the file only when this is its current revision."""
        if path.startswith("rev:"):
            revision = self.revision(path[4:])
            file = self.state.entries.get(revision.file_id)
            return (file if isinstance(file, File) and file.revision is revision else None), revision
        entry = self.find(path)
        if not isinstance(entry, File):
            raise PathLookupError("not_file")
        return entry, entry.revision

    def revision(self, rev: str) -> Revision:
        """Return a revision by its rev, if its place belongs to this view and it has not gone with time."""
        revision = self.state.kept_revision(rev)
        if revision is None or self.prefix_of(self.state.namespaces[revision.namespace_id]) is None:
            raise PathLookupError("not_found")
        return revision

    def _start(self, path: str) -> tuple[Folder | File, str]:
        if path.startswith("ns:"):
            namespace_id, slash, rest = path[3:].partition("/")
            namespace = self.state.namespaces.get(namespace_id)
            if namespace is None or not self.can_see(namespace):
                raise PathLookupError("not_found")
            if self.root.kind == "app_folder" and self.prefix_of(namespace) is None:
                raise PathLookupError("not_found")  # an app with an app folder never gets out of it
            mounts = [] if namespace is self.root else namespace.mounts
            mount = next((mount for mount in mounts if self.path_of(mount) is not None), None)
            return mount or namespace.root, slash + rest  # where it shows, it has a name, a path and an id there
        if path.startswith("id:"):
            entry_id, slash, rest = path.partition("/")
            entry = self.state.entries.get(entry_id)
            if entry is None or self.path_of(entry) is None:
                raise PathLookupError("not_found")
            assert isinstance(entry, (File, Folder))
            return entry, slash + rest
        return self.root.root, path

    def _descend(self, start: Entry, components: list[str]) -> Entry:
        node = start
        for component in components:
            child = node.inner.children.get(fold(component)) if isinstance(node, Folder) else None
            if child is None or not self.shows(child):
                raise PathLookupError("not_found")
            node = child
        return node

    def target(self, path: str) -> Target:
        """Return where a write to this path goes, or raise WriteError (malformed_path, conflict/file_ancestor)."""
        try:
            start, rest = self._start(path)
        except PathLookupError as error:
            raise WriteError("malformed_path") from error
        components = split(rest, astral=self.state.options.astral_names, writing=True)
        if not components:
            parent = start.parent
            if parent is None:
                raise WriteError("malformed_path")
            return Target(parent, (), start.name, start)
        node: Entry = start
        for depth, component in enumerate(components):
            if not isinstance(node, Folder):
                raise conflict("file_ancestor")
            child = node.inner.children.get(fold(component))
            if child is None:
                return Target(node, tuple(components[depth:-1]), components[-1], None)
            if depth < len(components) - 1:
                if not self.shows(child):
                    raise WriteError("no_write_permission")
                node = child
        assert isinstance(node, Folder)
        return Target(node, (), components[-1], node.inner.children[fold(components[-1])])

    def walk(self, folder: Folder, path: str = "") -> Iterator[tuple[str, File | Folder]]:
        """Yield everything shown below a folder, parents first, with its path as displayed below `path`."""
        for key in folder.inner.order():
            child = folder.inner.children[key]
            if self.shows(child):
                assert isinstance(child, (File, Folder))
                yield f"{path}/{child.name}", child
                if isinstance(child, Folder):
                    yield from self.walk(child, f"{path}/{child.name}")

    # Entries to paths ---------------------------------------------------------

    def path_of(self, entry: Entry) -> tuple[str, str] | None:
        """Return (path_lower, path_display) of an entry, or None when it is not mounted below this view's root."""
        lower: list[str] = []
        display: list[str] = []
        node = entry
        while node.parent is not None:
            lower.append(node.key)
            display.append(node.name)
            node = node.parent
        prefix = self.prefix_of(node.namespace)
        if prefix is None:
            return None
        if not lower:
            return prefix
        return f"{prefix[0]}/{'/'.join(reversed(lower))}", f"{prefix[1]}/{'/'.join(reversed(display))}"

    def prefix_of(self, namespace: Namespace) -> tuple[str, str] | None:
        """Return the path at which a namespace shows in this view ("" for its root), or None."""
        if namespace is self.root:
            return "", ""
        if not self.can_see(namespace):
            return None
        for mount in namespace.mounts:
            path = self.path_of(mount)
            if path is not None:
                return path
        return None

    def namespaces(self) -> Iterator[tuple[Namespace, str, str]]:
        """Yield (namespace, path_lower, path_display) for the view's root and all mounted below it."""
        for namespace in self.state.namespaces.values():
            prefix = self.prefix_of(namespace)
            if prefix is not None:
                yield namespace, *prefix
