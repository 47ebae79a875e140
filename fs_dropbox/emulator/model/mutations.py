"""The rules of every change to the tree: conflicts, autorename, permissions, quota, limits. Knows no HTTP and no JSON.

All functions need State.lock (they run inside State.mutation()) and raise PathLookupError or WriteError,
or RouteError for what the API reports outside of those two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal, Protocol

from fs_dropbox.emulator.model.contents import Content, Contents
from fs_dropbox.emulator.model.errors import PathLookupError, RouteError, WriteError, conflict
from fs_dropbox.emulator.model.names import fold, with_suffix
from fs_dropbox.emulator.model.tree import Entry, File, Folder, Namespace, Revision
from fs_dropbox.emulator.model.view import Target, View

Mode = Literal["add", "overwrite", "update"]


class Incoming(Protocol):
    """A content that waits for its commit; keep() is called once, after all checks."""

    hash: str
    size: int

    def keep(self) -> Content: ...


class Given:
    """A content that is kept already, by a revision or for the time being."""

    def __init__(self, contents: Contents, content_hash: str, size: int) -> None:
        self._contents = contents
        self.hash = content_hash
        self.size = size

    def keep(self) -> Content:
        """Hold the content for the commit as well."""
        return self._contents.reference(self.hash, self.size)


@contextmanager
def given(contents: Contents, blocks: Iterable[bytes]) -> Iterator[Given]:
    """Keep bytes for the time of a commit, which may come to nothing."""
    content = contents.keep_blocks(blocks)
    try:
        yield Given(contents, content.hash, content.size)
    finally:
        contents.release(content.hash)


@dataclass(slots=True, frozen=True)
class CommitInfo:
    """How to store a content: files.CommitInfo."""

    path: str
    mode: Mode = "add"
    rev: str = ""  # of mode update
    autorename: bool = False
    client_modified: int | None = None
    strict_conflict: bool = False
    template: str = ""  # of its first property group, of which the emulator has none


def commit(view: View, info: CommitInfo, content: Incoming) -> File:
    """Store a content under a path by the write mode and conflict table; return the file as it is afterwards."""
    target = view.target(info.path)
    view.check_write(target.namespace)
    existing, replaced = target.existing, None
    if isinstance(existing, File):
        check_lock(view, existing)
        if existing.revision.content_hash == content.hash and not info.strict_conflict:
            return existing  # identical content: nothing happens, whatever the mode
        if _may_replace(info, existing.revision, content.hash):
            replaced = existing
    is_taken = existing is not None or (info.mode == "update" and info.strict_conflict)
    if is_taken and replaced is None and not info.autorename:
        raise conflict(_kind(existing))
    check_quota(view, target.namespace, content.size - (replaced.revision.size if replaced is not None else 0))
    modified = info.client_modified if info.client_modified is not None else view.state.now()
    kept = content.keep()
    try:
        if replaced is not None:
            view.state.set_content(replaced, content.hash, content.size, modified)
            if view.state.options.overwrite_name == "change":
                view.state.set_name(replaced, target.name)
            file = replaced
        else:
            folder = make_parents(view, target)
            label = conflict_label(view) if info.mode == "update" else ""
            name = numbered_name(folder, target.name, label=label) if is_taken else target.name
            file = view.state.add_file(folder, name, content.hash, content.size, modified)
        _note_author(view, file)
        return file
    finally:
        view.state.contents.release(kept.hash)


def _may_replace(info: CommitInfo, revision: Revision, content_hash: str) -> bool:
    """Tell whether the write mode lets a content take a revision's place; an update has to change something."""
    if info.mode == "update":
        return revision.rev == info.rev and revision.content_hash != content_hash
    return info.mode == "overwrite"


def _note_author(view: View, file: File) -> None:
    """Remember who changed a file in a shared folder last."""
    if view.account is not None and file.namespace.is_shared:
        file.extra["modified_by"] = view.account.account_id


class SourceError(WriteError):
    """The source of a move may not be changed: from_write."""


def check_lock(view: View, file: File, refusal: type[WriteError] = WriteError) -> None:
    """Refuse a change of a file that somebody else has locked."""
    lock = file.extra.get("lock")
    if lock is not None and view.account is not None and lock.get("account_id") != view.account.account_id:
        raise refusal(view.state.options.locked_write)


def check_quota(view: View, namespace: Namespace, growth: int) -> None:
    """Raise insufficient_space when the owner's account would exceed its allocation."""
    if growth <= 0 or view.quota_left is None:
        return
    left = view.quota_left(namespace)
    if left is not None and growth > left:
        raise WriteError("insufficient_space")


def make_parents(view: View, target: Target) -> Folder:
    """Create the missing folders of a target and return the one that will hold the entry."""
    folder = target.folder.inner
    for name in target.missing:
        folder = view.state.add_folder(folder, name)
    return folder


def name_for(target: Target, *, autorename: bool) -> str:
    """Return the name for something new, or raise the conflict with what is there; autorename avoids it."""
    if target.existing is None:
        return target.name
    if not autorename:
        raise conflict(_kind(target.existing))
    return numbered_name(target.folder, target.name)


def _kind(entry: Entry | None) -> str:
    return "folder" if isinstance(entry, Folder) else "file"


def create_folder(view: View, path: str, *, autorename: bool = False) -> Folder:
    """Create a folder and its missing parents."""
    target = view.target(path)
    view.check_write(target.namespace)
    name = name_for(target, autorename=autorename)
    return view.state.add_folder(make_parents(view, target), name)


def delete(view: View, path: str, *, parent_rev: str | None = None) -> Entry:
    """Return what is to be deleted after all checks; the caller encodes it, then removes it with State.remove()."""
    entry = view.find(path)
    if entry.parent is None:
        raise PathLookupError("not_found")
    view.check_write(entry.namespace)
    if isinstance(entry, File):
        check_lock(view, entry)
    elif _is_teams(entry):
        raise WriteError("team_folder")
    if parent_rev is not None and not (isinstance(entry, File) and entry.revision.rev == parent_rev):
        raise conflict(_kind(entry))  # no folder has a revision
    check_subtree(view, entry)
    return entry


def _is_teams(entry: Entry) -> bool:
    """Tell whether an entry is a folder that only a team's admin moves about."""
    return isinstance(entry, Folder) and entry.mount is not None and entry.mount.kind in ("team_folder", "home")


def check_subtree(view: View, entry: Entry) -> None:
    """Raise too_many_files for more entries than one call may touch."""
    limit = view.state.options.max_subtree_entries
    if next(islice(entry.nodes(), limit, None), None) is not None:
        raise RouteError("too_many_files")


def relocate(
    view: View,
    source_path: str,
    target_path: str,
    *,
    move: bool,
    autorename: bool = False,
    may_change_owner: bool = True,
) -> Entry:
    """Move or copy an entry; never overwrites. Raises PathLookupError for the source, WriteError for the target."""
    source = view.find(source_path)
    if source.parent is None or _is_too_new(view, source):
        raise PathLookupError("not_found")
    target = view.target(target_path)
    if move:
        _check_source(view, source)
    view.check_write(target.namespace)
    if target.existing is source:
        return _move_onto_itself(view, source, target.name, move=move, autorename=autorename)
    if isinstance(source, Folder):
        _check_nesting(source, target, move=move)
    name = name_for(target, autorename=autorename)
    check_subtree(view, source)
    owners = {source.namespace.owner, target.namespace.owner} - {None}  # nobody owns what is the team's
    if move and len(owners) > 1 and not may_change_owner:
        raise RouteError("cant_transfer_ownership")
    if not move or source.namespace.owner != target.namespace.owner:
        _check_space(view, source, target)
    folder = make_parents(view, target)
    if move:
        view.state.relocate(source, folder, name)
        return source
    return view.state.duplicate(source, folder, name)


def _check_source(view: View, source: Entry) -> None:
    if not view.can_write(source.namespace):
        raise SourceError("no_write_permission")
    if _is_teams(source):
        raise SourceError("team_folder")
    if isinstance(source, File):
        check_lock(view, source, SourceError)


def _check_nesting(source: Folder, target: Target, *, move: bool) -> None:
    node: Folder | None = target.folder
    while node is not None:
        if node is source:
            raise RouteError("cant_move_folder_into_itself" if move else "duplicated_or_nested_paths")
        node = node.parent
    shared = any(isinstance(node, Folder) and node.mount is not None for node in source.nodes())
    if shared and not move:
        raise RouteError("cant_copy_shared_folder")
    if shared and target.namespace.is_shared:
        raise RouteError("cant_nest_shared_folder")


def _check_space(view: View, source: Entry, target: Target) -> None:
    try:
        check_quota(view, target.namespace, source.total_bytes())
    except WriteError as error:
        raise RouteError("insufficient_quota") from error


def _move_onto_itself(view: View, source: Entry, name: str, *, move: bool, autorename: bool) -> Entry:
    if not move:
        if not autorename:
            raise conflict(_kind(source))
        assert source.parent is not None
        free = numbered_name(source.parent, name)
        return view.state.duplicate(source, source.parent, free)
    if source.name == name:
        raise RouteError("duplicated_or_nested_paths")
    how = "rename" if autorename else view.state.options.case_only_move
    if how == "conflict":
        raise conflict(_kind(source))
    if how == "rename":
        view.state.set_name(source, name)
    return source


def _is_too_new(view: View, source: Entry) -> bool:
    """Tell whether the back-end that does relocations has not heard of this entry yet."""
    seconds = view.state.options.not_found_after_create_seconds
    return bool(seconds and view.state.clock() - source.extra.get("created_at", 0.0) < seconds)


def conflict_label(view: View) -> str:
    """Return what tells a file that lost a conflict from the one that won it."""
    return f"{view.account.display_name}'s conflicted copy" if view.account is not None else "conflicted copy"


def numbered_name(folder: Folder, name: str, *, label: str = "") -> str:
    """Return the first name with a number, or with a label, that the folder does not have yet."""
    for number in count(1):
        words = [label] if label else []
        if number > 1 or not label:
            words.append(str(number))
        candidate = with_suffix(name, f" ({' '.join(words)})")
        if fold(candidate) not in folder.inner.children:
            return candidate
    raise AssertionError


def restore(view: View, path: str, rev: str) -> File:
    """Bring back a revision at its path: a new rev, the same id, the old client time."""
    target = view.target(path)
    revision = view.state.kept_revision(rev)
    if revision is None or not _belongs(view, revision, target.namespace, target.key_path):
        raise RouteError("invalid_revision")
    view.check_write(target.namespace)
    existing = target.existing
    if isinstance(existing, Folder):
        raise conflict("folder")
    if isinstance(existing, File):
        check_lock(view, existing)
        if existing.revision is not revision:
            check_quota(view, target.namespace, revision.size - existing.revision.size)
            view.state.set_content(existing, revision.content_hash, revision.size, revision.client_modified)
            _note_author(view, existing)
        return existing
    check_quota(view, target.namespace, revision.size)
    entry_id = revision.file_id if revision.file_id not in view.state.entries else None
    content, size, modified = revision.content_hash, revision.size, revision.client_modified
    file = view.state.add_file(make_parents(view, target), target.name, content, size, modified, entry_id)
    _note_author(view, file)
    return file


def _belongs(view: View, revision: Revision, namespace: Namespace, key_path: str) -> bool:
    if revision in view.state.path_history.get((namespace.id, key_path), []):
        return True
    file = view.state.entries.get(revision.file_id)
    return file is not None and file.namespace is namespace and file.key_path() == key_path


def permanently_delete(view: View, path: str, *, parent_rev: str | None = None) -> None:
    """Delete an entry, or what was deleted before, with all its revisions."""
    try:
        entry = delete(view, path, parent_rev=parent_rev)
    except PathLookupError:
        _forget_deleted(view, path)
        return
    namespace, key_path = entry.namespace, entry.key_path()
    view.state.remove(entry)
    forget_below(view, namespace, key_path)


def _forget_deleted(view: View, path: str) -> None:
    target = view.target(path)
    if target.namespace.tombstone(target.key_path) is None:
        raise PathLookupError("not_found")
    view.check_write(target.namespace)
    forget_below(view, target.namespace, target.key_path)


def forget_below(view: View, namespace: Namespace, key_path: str) -> None:
    """Drop tombstones and revisions at a path and everything below it."""
    below = [p for (n, p) in view.state.path_history if n == namespace.id and _is_below(p, key_path)]
    for path in below:
        view.state.forget_history(namespace, path)
    graves = [f"{parent}/{key}" for parent, keys in namespace.tombstones.items() for key in keys]
    for path in graves:
        if _is_below(path, key_path):
            view.state.forget_tombstone(namespace, path)


def _is_below(path: str, key_path: str) -> bool:
    return path == key_path or path.startswith(key_path + "/")
