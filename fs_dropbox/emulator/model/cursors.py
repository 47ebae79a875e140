"""Listings in pages and what changed since. The position is all in the signed cursor, so that it outlives a restart."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as fields_of
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any

from fs_dropbox.emulator.model import metadata
from fs_dropbox.emulator.model.errors import BadArgumentError, BadRequestError, PathLookupError, RouteError
from fs_dropbox.emulator.model.tree import Change, Entry, File, Folder, Namespace, Tombstone
from fs_dropbox.emulator.model.view import View

SIGNATURE_BYTES = 12


@dataclass(slots=True, frozen=True)
class Cursor:
    """What a listing is about and how far it has come. `after` is set until the listing itself is through."""

    account: str | None
    root: str  # namespace id of the view's root
    everything: bool
    namespace: str  # the listed folder: namespace and key path
    path: str
    recursive: bool
    deleted: bool
    mounted: bool
    non_downloadable: bool
    media_info: bool  # asked for, though none is in listings any more
    limit: int | None
    sequence: int  # changes after this one are news
    epoch: int
    after: tuple[str, ...] | None = None


@dataclass(slots=True, frozen=True)
class Page:
    """One answer of list_folder or list_folder/continue."""

    entries: list[dict[str, Any]]
    cursor: Cursor
    has_more: bool


class Cursors:
    """Signs and reads cursors. `epoch` grows when all cursors are declared void; it is stored with the settings."""

    def __init__(self, secret: bytes, epoch: int = 0) -> None:
        self._secret = secret
        self.epoch = epoch

    def encode(self, cursor: Cursor) -> str:
        """Return the text of a cursor."""
        return self.seal(list(asdict(cursor).values()))

    def seal(self, value: Any) -> str:
        """Return an opaque text for a JSON value that only this emulator can have made."""
        data = zlib.compress(json.dumps(value, separators=(",", ":")).encode())
        return "AA" + base64.urlsafe_b64encode(self._sign(data) + data).decode().rstrip("=")

    def unseal(self, text: str) -> Any:
        """Return the value behind a text of seal(), or raise BadRequestError."""
        try:
            raw = base64.urlsafe_b64decode(text[2:] + "=" * (-len(text[2:]) % 4))
        except ValueError:
            raw = b""
        signature, data = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
        if not text.startswith("AA") or not hmac.compare_digest(signature, self._sign(data)):
            raise BadRequestError(f"Invalid \"cursor\" parameter: '{text}'")
        return json.loads(zlib.decompress(data))

    def decode(self, text: str) -> Cursor:
        """Return the cursor behind a text. Raises BadRequestError for one never given out, reset for a void one."""
        fields = self.unseal(text)
        if not isinstance(fields, list) or len(fields) != len(fields_of(Cursor)):
            raise BadArgumentError("cursor: unsupported cursor type")
        if fields[-1] is not None:
            fields[-1] = tuple(fields[-1])
        cursor = Cursor(*fields)
        if cursor.epoch != self.epoch:
            raise RouteError("reset")
        return cursor

    def _sign(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, hashlib.sha256)[:SIGNATURE_BYTES]


def folder_of(view: View, cursor: Cursor) -> Folder:
    """Return the folder that a cursor lists, or raise PathLookupError."""
    namespace = view.state.namespaces.get(cursor.namespace)
    if namespace is None or view.prefix_of(namespace) is None:
        raise PathLookupError("not_found")
    folder = _below(namespace.root, cursor.path)
    if folder is None:
        raise PathLookupError("not_found")
    if not isinstance(folder, Folder):
        raise PathLookupError("not_folder")
    return folder


def _below(folder: Folder, path: str, shows: Callable[[Entry], bool] = lambda _: True) -> Entry | None:
    """Return what is at a path below a folder, None where nothing is, or what is on the way does not show."""
    node: Entry | None = folder
    for key in path.split("/")[1:]:
        node = node.inner.children.get(key) if isinstance(node, Folder) else None
        if node is None or not shows(node):
            return None
    return node


def read_page(view: View, cursor: Cursor) -> Page:
    """Return the next page: the rest of the listing first, then what has changed since it began."""
    folder = folder_of(view, cursor)
    if cursor.after is None:
        return _read_changes(view, cursor, folder)
    limit = _page_limit(view, cursor)
    found = list(islice(_walk(view, cursor, folder, cursor.after), limit + 1))
    entries = [entry for _, entry in found[:limit] if _is_wanted(cursor, entry)]
    if len(found) > limit:
        return Page(entries, replace(cursor, after=found[limit - 1][0] if limit else cursor.after), True)
    done = replace(cursor, after=None)
    return Page(entries, done, has_changes(view, done))


def _page_limit(view: View, cursor: Cursor) -> int:
    limit = cursor.limit or view.state.options.page_size
    return random.choice((0, 1, limit // 2 + 1, limit)) if view.state.options.uneven_pages else limit


def _is_wanted(cursor: Cursor, entry: dict[str, Any]) -> bool:
    return cursor.non_downloadable or entry.get("is_downloadable", True)


# Listing --------------------------------------------------------------------

Found = tuple[tuple[str, ...], dict[str, Any]]


def _walk(view: View, cursor: Cursor, folder: Folder, after: tuple[str, ...]) -> Iterator[Found]:
    path = view.path_of(folder)
    assert path is not None
    if cursor.recursive and not after and path[0] and view.state.options.recursive_lists_root:
        # The key "" sorts before all children, so that the next page begins with the first of them.
        yield ("",), metadata.of_entry(view, folder, path=path)
    within = folder.inner.namespace, folder.inner.key_path()
    yield from _walk_below(view, cursor, folder.inner, within, (), path, after)


def _walk_below(
    view: View,
    cursor: Cursor,
    folder: Folder | None,
    place: tuple[Namespace, str],
    keys: tuple[str, ...],
    path: tuple[str, str],
    after: tuple[str, ...],
) -> Iterator[Found]:
    """Yield what is in a folder and, where asked for, what was; `folder` is None for one that is gone itself."""
    children = folder.children if folder is not None else {}
    graves: dict[str, Tombstone] = place[0].tombstones.get(place[1], {}) if cursor.deleted else {}
    order = folder.order() if folder is not None and not graves else sorted({*children, *graves})
    for key in order[bisect_left(order, after[0]) if after else 0 :]:
        child = children.get(key)
        if child is not None and not view.shows(child):
            continue
        here, shown = (*keys, key), (f"{path[0]}/{key}", f"{path[1]}/{(child or graves[key]).name}")
        resumes = after[:1] == (key,)
        if not resumes and child is None:
            yield here, metadata.of_tombstone(graves[key], shown)
        elif not resumes and child is not None:
            yield here, metadata.of_entry(view, child, path=shown)
        if not cursor.recursive:
            continue
        rest = after[1:] if resumes else ()
        if child is None:
            yield from _walk_below(view, cursor, None, (place[0], f"{place[1]}/{key}"), here, shown, rest)
        elif isinstance(child, Folder) and (child.mount is None or cursor.mounted):
            within = child.inner.namespace, child.inner.key_path()
            yield from _walk_below(view, cursor, child.inner, within, here, shown, rest)


# Changes --------------------------------------------------------------------


def has_changes(view: View, cursor: Cursor) -> bool:
    """Tell whether read_page would report something now."""
    if cursor.after is not None:
        return True
    folder = folder_of(view, cursor)
    return next(_pending(view, cursor, folder), None) is not None


Pending = tuple[int, str, str, Change]  # sequence, path_lower, display path of the namespace, change


def _pending(view: View, cursor: Cursor, folder: Folder) -> Iterator[Pending]:
    """Yield every journal record that concerns the cursor, in order."""
    base = view.path_of(folder)
    assert base is not None
    sources = []
    for namespace, lower, display in view.namespaces():
        if not (cursor.mounted or namespace is folder.inner.namespace):
            continue
        if lower and not (lower + "/").startswith(base[0] + "/") and not base[0].startswith(lower):
            continue
        if cursor.sequence < namespace.forgotten_sequence:
            raise RouteError("reset")
        sources.append(_pending_in(namespace.journal, cursor, base[0], lower, display))
    return merge(*sources)


def _pending_in(journal: list[Change], cursor: Cursor, base: str, lower: str, display: str) -> Iterator[Pending]:
    for index in range(bisect_right(journal, cursor.sequence, key=attrgetter("sequence")), len(journal)):
        change = journal[index]
        path = lower + change.key_path
        if not path.startswith(base + "/"):
            continue
        if not cursor.recursive and "/" in path[len(base) + 1 :]:
            continue
        yield change.sequence, path, display, change


def _read_changes(view: View, cursor: Cursor, folder: Folder) -> Page:
    base = view.path_of(folder)
    assert base is not None
    limit = max(1, _page_limit(view, cursor))
    # The last record of each path within the page; records of a path in several pages do no harm.
    latest: dict[tuple[str, bool], tuple[str, Change]] = {}
    position, has_more = cursor.sequence, False
    for sequence, path, display, change in _pending(view, cursor, folder):
        key = (path, change.deleted_display is not None)
        if key not in latest and len(latest) == limit:
            has_more = True
            break
        latest.pop(key, None)
        latest[key] = (display, change)
        position = sequence
    if not has_more:
        position = max(view.state.sequence, cursor.sequence)
    entries = []
    for (path, _), (display, change) in latest.items():
        entry = _below(folder, path[len(base[0]) :], view.shows)
        if change.deleted_display is not None:
            if not (isinstance(entry, File) and _was_file(entry)):  # a file in place of another is reported alone
                shown = display + change.deleted_display
                entries.append(
                    {".tag": "deleted", "name": shown.rpartition("/")[2], "path_lower": path, "path_display": shown}
                )
        elif entry is not None:
            entries.append(metadata.of_entry(view, entry))
        elif (lost := _lost_team_folder(view, folder, path[len(base[0]) :])) is not None:
            shown = display + lost.display_path()
            entries.append({".tag": "deleted", "name": lost.name, "path_lower": path, "path_display": shown})
    wanted = [entry for entry in entries if _is_wanted(cursor, entry)]
    return Page(wanted, replace(cursor, sequence=position), has_more)


def _was_file(file: File) -> bool:
    """Tell whether what was deleted from a file's place had nothing below it.

    Synchronising clients that know a folder there rely on hearing of its end: see Maestral's tests on the real service.
    """
    return not file.namespace.tombstones.get(file.key_path())


def _lost_team_folder(view: View, folder: Folder, path: str) -> Folder | None:
    """Return the team folder at a path to which the account has lost its access: for it, the folder has gone."""
    above, _, key = path.rpartition("/")
    parent = _below(folder, above, view.shows)
    node = parent.inner.children.get(key) if isinstance(parent, Folder) else None
    if not isinstance(node, Folder) or node.mount is None or view.account is None or view.shows(node):
        return None
    return node if view.account.account_id in node.mount.extra.get("former_members", []) else None
