"""`Client`: one method for each API route in use; JSON in, entries out. Knows no cache and no `fs.errors`.

Every path is an API path ("" is the root). Every method raises ApiError or TransportError, nothing else; both only
after the retries of `retry.py`, and with the outcome settled where the answer to a change was lost.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from fs_dropbox.api import commits, downloads, longpolls, results, routes
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.batch_calls import BatchCalls
from fs_dropbox.api.calls import Account, Caller
from fs_dropbox.api.commits import Commit, Update
from fs_dropbox.api.fresh import Fresh
from fs_dropbox.api.results import Longpoll, Page, SpaceUsage
from fs_dropbox.api.retry import Governor, RetryPolicy, Traffic
from fs_dropbox.api.routes import Route
from fs_dropbox.api.session_calls import SessionCalls
from fs_dropbox.api.sharing import Sharing
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.entries import Entry, FileEntry, FolderEntry, decode_file, decode_folder
from fs_dropbox.errors import ApiError, DropboxError

__all__ = ["Account", "Client", "Commit", "Longpoll", "Page", "SpaceUsage", "Update"]

T = TypeVar("T")

PAGE_ENTRIES: Final = 2000
RANGE_PIECE_BYTES: Final = 2**20
REVISIONS_PER_CALL: Final = 100


class Client(SessionCalls):
    """One account's API. Thread-safe, lock-free; owned by DropboxFS; owns the HTTP pool.

    No network before the first call. `api_host` ("127.0.0.1:8443") takes the place of all of Dropbox's hosts,
    `ca_certs` names a PEM file or folder to trust; `root` is "auto", "home" or a namespace id.

    Raises:
        ValueError: the root makes no sense.
        TransportError: the CA certificates cannot be read.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        api_host: str | None = None,
        ca_certs: str | None = None,
        root: str = "auto",
        policy: RetryPolicy | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        caller = Caller(
            credentials,
            api_host=api_host,
            ca_certs=ca_certs,
            root=root,
            policy=policy or RetryPolicy(),
            timeout_seconds=timeout_seconds,
        )
        super().__init__(caller)
        self.sharing = Sharing(self._caller)
        self._fresh = Fresh()
        self.batches = BatchCalls(self._caller, self._fresh)

    @property
    def governor(self) -> Governor:
        """The brake that all clients of this account in this process share."""
        return self._caller.governor

    def rooted(self, namespace_id: str) -> Client:
        """Return a client of the same account, connections included, whose paths start in a namespace."""
        rooted = copy.copy(self)
        rooted._caller = self._caller.rooted(namespace_id)
        rooted.sharing = Sharing(rooted._caller)
        rooted.batches = BatchCalls(rooted._caller, rooted._fresh)
        return rooted

    def on_root_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever paths have come to mean something else: the account has another root now."""
        self._caller.on_root_change = callback

    def interrupt(self, thread_id: int | None) -> None:
        """End what a thread waits for here with TransportError("interrupted"); it may go on with new calls."""
        if thread_id is not None:
            self._caller.interrupt(thread_id)

    def pause_after(self, failures: int) -> None:
        """Wait as long as the policy says after so many failures in a row; raises TransportError when interrupted."""
        self._caller.pause_after(failures)

    def close(self) -> None:
        """End all calls under way with TransportError("closed") and close the connections. Idempotent."""
        self._caller.close()

    # Account

    def account(self, policy: RetryPolicy | None = None) -> Account:
        """Return whose account it is; raises AuthError where the credentials are not what they should be.

        `policy` takes the place of the usual one, for whoever does not want to wait as long.
        """
        return self._caller.account(policy)

    def space_usage(self) -> SpaceUsage:
        """Return the space in use and allocated."""
        return self._caller.call(routes.SPACE_USAGE, None, decode=results.decode_space)

    # Metadata

    def get_metadata(self, path: str) -> FileEntry | FolderEntry:
        """Return the entry at a path (also "id:…" or "rev:…")."""
        found = self._call(routes.GET_METADATA, {"path": path}, results.decode_present, path)
        return results.placed(found, path)

    def find(self, path: str) -> FileEntry | FolderEntry | None:
        """Return what is at a path, None where nothing is."""
        return commits.find(self, path)

    def pages(
        self, path: str, *, recursive: bool = False, limit: int | None = None, include_deleted: bool = False
    ) -> Iterator[Page]:
        """Yield the pages of a listing as `list_folder` does; each is asked for when it is wanted."""
        page = self.list_folder(path, recursive=recursive, limit=limit, include_deleted=include_deleted)
        yield page
        while page.has_more:
            page = self.list_folder_continue(page.cursor)
            yield page

    def list_folder(
        self, path: str, *, recursive: bool = False, limit: int | None = None, include_deleted: bool = False
    ) -> Page:
        """Return the first page of a listing; `limit` is approximate. A recursive one may include the folder itself."""
        limit = limit or PAGE_ENTRIES
        argument = {"path": path, "recursive": recursive, "include_deleted": include_deleted, "limit": limit}
        return self._call(routes.LIST_FOLDER, argument, results.decode_page, path)

    def list_folder_continue(self, cursor: str) -> Page:
        """Return what follows a cursor; raises ApiError ("reset",) where the cursor has expired."""
        return self._caller.call(routes.LIST_FOLDER_CONTINUE, {"cursor": cursor}, decode=results.decode_page)

    def latest_cursor(self, path: str) -> str:
        """Return a cursor that stands at now, for all that happens below a path."""
        argument = {"path": path, "recursive": True, "include_deleted": False}
        return self._call(routes.LATEST_CURSOR, argument, lambda result: str(result["cursor"]), path)

    def longpoll(self, cursor: str, timeout_seconds: int, is_over: Callable[[], bool]) -> Longpoll:
        """Wait until something happens after the cursor, or for the time given (30 to 480 s) and up to 90 s more.

        To end it, have `is_over` say so and `interrupt` the thread: it then says that there are no changes.
        """
        return longpolls.longpoll(self._caller, cursor, timeout_seconds, is_over)

    def list_revisions(self, path: str, *, limit: int = REVISIONS_PER_CALL) -> list[FileEntry]:
        """Return the latest revisions of a file, present or deleted, newest first: so many as one call tells."""
        return list(islice(self.revisions(path, limit), limit))

    def revisions(self, path: str, per_call: int = REVISIONS_PER_CALL) -> Iterator[FileEntry]:
        """Yield all revisions of a file, present or deleted, newest first; they are asked for when they are wanted."""
        argument: dict[str, Any] = {"path": path, "limit": per_call}
        has_more, last = True, ""
        while has_more:
            entries, has_more = self._call(routes.LIST_REVISIONS, argument, results.decode_revisions, path)
            yield from entries
            before, last = last, entries[-1].rev if entries else ""
            has_more = has_more and last not in ("", before)  # stand-ins may know no `before_rev`
            argument["before_rev"] = last

    # Content

    def download(self, path: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of a path or "rev:…", fewer where the file ends before; start lies in the file.

        The range is checked against what was sent: its bounds, its length, its end.
        """
        return b"".join(downloads.download(self._caller, path, start, end, RANGE_PIECE_BYTES))

    def download_revision(
        self, entry: FileEntry, start: int, end: int, piece_bytes: int = RANGE_PIECE_BYTES
    ) -> list[bytes]:
        """Return what `download` does, of this revision whatever its path holds by now.

        In pieces of one size but for the last: as they came, without a copy.
        """

        def ask(path: str, rev: str | None) -> list[bytes]:
            return downloads.download(self._caller, path, start, end, piece_bytes, rev)

        return downloads.of_revision(entry.rev, entry.path_display, ask)

    def export(self, entry: FileEntry, export_format: str | None = None) -> bytes:
        """Return what a document is exported as, in the format that Dropbox proposes unless one is given."""
        return downloads.export(self._caller, entry, export_format)

    def upload(self, commit: Commit, data: bytes) -> FileEntry:
        """Commit a small file in one call (at most 150 MiB)."""
        commit = commit.marked()
        content_hash = ContentHash(data).hexdigest()
        return self._commit(
            routes.UPLOAD, {**commit.argument(), "content_hash": content_hash}, commit, data, len(data), content_hash
        )

    def session_finish(self, session_id: str, offset: int, commit: Commit, content_hash: str) -> FileEntry:
        """Commit a closed session of `offset` bytes; `content_hash` is the whole file's, to settle a lost answer by."""
        commit = commit.marked()
        argument = {"cursor": {"session_id": session_id, "offset": offset}, "commit": commit.argument()}
        return self._commit(routes.SESSION_FINISH, argument, commit, b"", offset, content_hash)

    def session_finish_batch(self, finished: Sequence[tuple[str, int, Commit]]) -> list[FileEntry | ApiError]:
        """Commit closed sessions in one call; returns the file or the error of each.

        Where the answer is lost the same sessions are finished again, since each is committed once at most: those that
        were committed the first time are refused then with `lookup_failed`. An error that `is_unsettled` means that
        some may have been committed, or may still be.
        """
        entries = [
            {"cursor": {"session_id": session_id, "offset": offset}, "commit": commit.argument()}
            for session_id, offset, commit in finished
        ]
        lost = False

        def send_again() -> None:
            nonlocal lost
            lost = True

        def decode_entries(result: dict[str, Any]) -> list[FileEntry | ApiError]:
            outcomes: list[FileEntry | ApiError] = []
            for entry, (_, _, commit) in zip(result["entries"], finished, strict=True):
                failure = results.failure(routes.SESSION_FINISH_BATCH.name, entry)
                made = commit.blame(failure) if failure else results.placed(decode_file(entry), commit.path)
                outcomes.append(self._fresh.note(made))
            return outcomes

        try:
            outcomes = self._caller.call(
                routes.SESSION_FINISH_BATCH, {"entries": entries}, decode=decode_entries, settle=send_again
            )
        except DropboxError as error:
            error.is_unsettled = error.is_unsettled or lost
            raise
        return [commits.note_lock(self, each, each.path) if isinstance(each, ApiError) else each for each in outcomes]

    # Changes

    def create_folder(self, path: str) -> FolderEntry:
        """Create a folder and the parents that it lacks; raises ApiError ("path", "conflict", …) where something is."""
        entry = self._call(
            routes.CREATE_FOLDER,
            {"path": path, "autorename": False},
            lambda result: results.placed(decode_folder(result["metadata"]), path),
            path,
            settle=lambda: commits.settle_create_folder(self, path),
        )
        return self._fresh.note(entry)

    def delete(self, path: str, *, parent_rev: str | None = None, entry_id: str | None = None) -> Entry:
        """Delete a file, or a folder with all that it holds; with `parent_rev` only that revision of a file.

        Returns what was deleted, or a DeletedEntry where the answer was lost and it is there no more; `entry_id` then
        tells it from what others have put in its place, which stays.
        """

        def settle() -> Entry | None:
            return commits.settle_delete(self, path, entry_id)

        # By its path, though a late deletion may hit a successor: by its id, each would follow what others move away.
        argument = {"path": path, **({"parent_rev": parent_rev} if parent_rev else {})}
        try:
            return self._call(routes.DELETE, argument, results.decode_result, path, settle=settle)
        except ApiError as error:
            error.lost_update = parent_rev is not None and error.tag == ("path_write", "conflict", "file")
            raise

    def move(self, source: str, target: str, *, source_id: str | None = None) -> FileEntry | FolderEntry:
        """Move a file or folder; never overwrites. `source_id` makes exact how a lost answer is settled."""
        # Ownership: into a shared folder of someone else, too; whoever asks for the move means it.
        argument = {"from_path": source, "to_path": target, "autorename": False, "allow_ownership_transfer": True}
        return self._relocate(
            routes.MOVE,
            argument,
            settle=lambda: commits.settle_move(self, source, target, source_id),
            is_disturbed=lambda: commits.has_gone(self, source, source_id),
        )

    def copy(self, source: str, target: str) -> FileEntry | FolderEntry:
        """Copy a file or folder; never overwrites."""
        return self._relocate(
            routes.COPY,
            {"from_path": source, "to_path": target, "autorename": False},
            settle=lambda: commits.settle_copy(self, source, target),
            is_disturbed=lambda: self.find(target) is not None,
        )

    def restore(self, path: str, rev: str) -> FileEntry:
        """Make a revision of a file, present or deleted, its present content."""

        def settle() -> FileEntry | None:
            return commits.settle_restore(self, path, rev)

        restored = self._call(routes.RESTORE, {"path": path, "rev": rev}, decode_file, path, settle=settle)
        return self._fresh.note(results.placed(restored, path))

    def bring_back(self, path: str, rev: str) -> FileEntry | FolderEntry:
        """Restore a file where there is nothing. Where the answer was lost, what is there by then stays."""
        decode: Callable[[Any], FileEntry | FolderEntry] = decode_file
        back = self._call(routes.RESTORE, {"path": path, "rev": rev}, decode, path, settle=lambda: self.find(path))
        return self._fresh.note(results.placed(back, path))

    def _call(
        self,
        route: Route,
        argument: Any,
        decode_result: Callable[[Any], T],
        path: str,
        *,
        settle: Callable[[], T | None] | None = None,
    ) -> T:
        try:
            return self._caller.call(route, argument, decode=decode_result, settle=settle)
        except ApiError as error:
            error.path = path
            if route.traffic is Traffic.WRITE:
                commits.note_lock(self, error, path)
            raise

    def _commit(
        self, route: Route, argument: Any, commit: Commit, data: bytes, size: int, content_hash: str
    ) -> FileEntry:
        try:
            entry = self._caller.call(
                route,
                argument,
                data=data,
                decode=decode_file,
                settle=lambda: commits.settle_commit(self, commit, size, content_hash),
            )
        except ApiError as error:
            done = None
            try:
                if commit.blame(error).lost_update:
                    done = commits.unchanged(self, commit, size, content_hash)
                elif error.was_repeated and error.tag[:1] == ("lookup_failed",):
                    # A session is finished once: it is gone because the first try took place.
                    done = commits.find_superseded(self, commit, size, content_hash)
            except DropboxError as unknown:
                unknown.is_unsettled = True
                raise
            if done is None:
                commits.note_lock(self, error, commit.path)
                raise
            entry = done
        return self._fresh.note(results.placed(entry, commit.path))

    def _relocate(
        self,
        route: Route,
        argument: dict[str, Any],
        *,
        settle: Callable[[], FileEntry | FolderEntry | None],
        is_disturbed: Callable[[], bool],
    ) -> FileEntry | FolderEntry:
        """Move or copy; `is_disturbed` tells whether what `settle` did not find may be due to changes of others."""
        source, target = argument["from_path"], argument["to_path"]
        in_doubt = False

        def look() -> FileEntry | FolderEntry | None:
            nonlocal in_doubt
            done = settle()
            in_doubt = done is None and is_disturbed()
            return done

        def call() -> FileEntry | FolderEntry:
            return results.placed(self._call(route, argument, results.decode_result, source, settle=look), target)

        try:
            return self._fresh.relocate(source, call, self._caller.pause)
        except DropboxError as error:
            error.is_unsettled = error.is_unsettled or in_doubt
            raise
