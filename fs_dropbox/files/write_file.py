"""`WriteFile`: the file object of every mode that writes. No HTTP."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from fs.errors import FilesystemClosed, FSError, OperationFailed
from fs.mode import Mode

from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import fs_errors
from fs_dropbox.files.all_or_nothing import tell_forgotten
from fs_dropbox.files.blocks import BlockReader
from fs_dropbox.files.read_file import COPY_BYTES, DropboxFile, invalid
from fs_dropbox.files.spool import Spool
from fs_dropbox.uploads.upload import Upload

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class WriteFile(DropboxFile):
    """A file in any mode that writes. Nothing of it is visible before `close()`, nothing ever after `abort()`.

    It starts as a stream: what is written in order goes straight into an upload, with a copy on local disk so that the
    writer may still seek back; where there is no room for that, nobody misses it who does not. A writer that seeks,
    reads or truncates goes on in that copy, the spool, which is then uploaded in `close()`. A base (modes r+ and a) is
    fetched into the spool when it is first needed.
    Thread-safe: one lock over everything, held while a block is handed to the upload.
    """

    def __init__(
        self,
        path: str,
        mode: Mode,
        *,
        open_upload: Callable[[], Upload],
        epoch: Callable[[], int],
        on_commit: Callable[[FileEntry, int], None],
        on_failure: Callable[[str], None],
        on_close: Callable[[DropboxFile], None],
        base: tuple[FileEntry, BlockReader] | None = None,
        modified: datetime | None = None,
        seekable: bool = True,
    ) -> None:
        super().__init__(path, mode, on_close)
        self.modified = modified
        self.version = base[0].rev if base is not None else ""
        self._open_upload = open_upload
        self._epoch = epoch
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._seekable = seekable
        # guarded by _lock
        self._base = base
        self._end = base[0].size if base is not None else 0
        self._changed = base is None
        self._upload: Upload | None = open_upload() if base is None and not mode.reading else None
        self._spool = Spool()
        self._no_copy: OSError | None = None  # why the spool does not have what was streamed
        self._ended = False
        self._error: Exception | None = None  # why somebody else has aborted it
        if mode.appending:
            self._position = self._end

    def seekable(self) -> bool:
        return self._seekable

    def write(self, data: ReadableBuffer, /) -> int:
        self._check_writing()
        view = memoryview(data).cast("B")
        with self._changing():
            if not view:
                return 0
            if self._mode.appending:
                self._position = self._end
            self._changed = True
            if self._upload is not None and self._position == self._end:
                self._stream(view)
            else:
                self._to_spool()
                self._spool.write(self._position, view)
            self._position += len(view)
            self._end = max(self._end, self._position)
            return len(view)

    def write_now(self, data: ReadableBuffer, /) -> bool:
        """Take what follows in a stream, all of it, if nothing has to be waited for; tell whether.

        What is not taken is for `write`, which also tells what is wrong.
        """
        self._check_writing()
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._upload is None or self._seekable or self._ended or self._position != self._end:
                return False
            view = memoryview(data).cast("B")
            with self._changing(), fs_errors(self.name):
                if not self._upload.write_now(view):
                    return False
            self._position = self._end = self._end + len(view)
            return True
        finally:
            self._lock.release()

    def truncate(self, size: int | None = None) -> int:
        self._check_writing()
        if size is not None and size < 0:
            raise invalid(f"negative size: {size}")
        with self._changing():
            size = self._position if size is None else size
            if size != self._end:
                self._changed = True
                if size == 0:
                    self._drop_base()
                self._to_spool()
                self._spool.truncate(size)
                self._end = size
            return size

    def flush(self) -> None:
        """Nothing becomes visible before close()."""
        self._check_open()

    def checkpoint(self) -> tuple[str, int] | None:
        """Tell how many bytes Dropbox has for certain, and the text with which `openbin(resume=…)` goes on from there.

        None where there is nothing to go on with. Never waits; also after `abort()`.
        """
        upload = self._upload
        known = upload.checkpoint if upload is not None else None
        return None if known is None else (str(known), known.sent)

    def abort(self, error: Exception | None = None) -> None:
        """Discard everything; the file in Dropbox stays as it was. Idempotent.

        Closing afterwards does nothing, or raises `error`: for whoever does not know that the file was aborted.
        """
        if self._is_the_parents:
            self._ended = True
            return
        with self._lock:
            if error is None:  # whoever has the file discards it, and need not be told
                self._error = None
            if not self._ended:
                self._ended = True
                self._error = error
                self._discard()

    def close(self) -> None:
        """Commit; raises an `fs.errors` error when Dropbox does not take the file, once: closing again does nothing."""
        if self.closed:
            return
        if self._is_the_parents:
            super().close()
            if not self._ended:
                raise FilesystemClosed
            return
        with self._lock:
            try:
                if not self._ended:
                    self._ended = True
                    self._commit()
                elif self._error is not None:
                    raise self._error
            finally:
                self._discard()
                super().close()
                self._on_close(self)

    def __del__(self) -> None:
        # Forgotten without close(): whoever forgot it has not said that it is complete.
        if not getattr(self, "_ended", True):
            tell_forgotten(self)
            self.abort()
        self._error = None  # nobody is left to be told
        super().__del__()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock for a change. One that fails leaves nothing to commit: closing raises its error once more."""
        with self._lock:
            self._check_not_aborted()
            try:
                yield
            except (io.UnsupportedOperation, ValueError):  # of what is asked for: nothing has been changed
                raise
            except (FSError, OSError) as error:
                self.abort(error)
                raise
            except BaseException:  # Ctrl-C, for one: nobody knows how much of it was taken
                self.abort(self._broken_off())
                raise

    def _broken_off(self) -> OperationFailed:
        return OperationFailed(self.name, msg="'{path}': writing was broken off; nothing was stored")

    def _check_not_aborted(self) -> None:
        if self._ended:
            raise self._error or ValueError("I/O operation on aborted file")

    def _commit(self) -> None:
        if not self._changed:
            return
        with fs_errors(self.name):
            if self._upload is None:
                self._upload = self._open_upload()
                for piece in self._spool.pieces():
                    self._upload.write(piece)
            since = self._epoch()
            try:
                entry = self._upload.commit(client_modified=self.modified)
                self.version = entry.rev
                self._on_commit(entry, since)
            except BaseException:  # Ctrl-C as well
                self._on_failure(self.name)  # whatever was known of the path, it is not what Dropbox has
                raise

    def _stream(self, view: memoryview) -> None:
        assert self._upload is not None
        with fs_errors(self.name):
            self._upload.write(view)
        if self._seekable and self._no_copy is None:
            try:
                self._spool.write(self._end, view)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._no_copy = error
                self._spool.close()

    def _to_spool(self) -> None:
        """Leave the stream for the local copy."""
        if self._upload is None:
            self._fill()
            return
        if not self._seekable:
            raise io.UnsupportedOperation(f"{self.name} was opened to be written from the first byte to the last")
        if self._no_copy is not None:
            raise self._no_copy
        self._upload.abort()
        self._upload = None

    def _fill(self) -> None:
        """Fetch the base into the spool, once."""
        if self._base is None:
            return
        entry, blocks = self._base
        self._base = None
        try:
            with fs_errors(self.name):
                for start in range(0, entry.size, COPY_BYTES):
                    self._spool.write(start, blocks.read(start, COPY_BYTES))
        except BaseException as error:  # what is there of it must never be taken for the whole
            self.abort(error if isinstance(error, (FSError, OSError)) else self._broken_off())
            raise
        finally:
            blocks.close()

    def _drop_base(self) -> None:
        if self._base is not None:
            self._base[1].close()
            self._base = None

    def _length(self) -> int:
        return self._end

    def _read_at(self, offset: int, size: int) -> bytes:
        self._check_not_aborted()
        self._to_spool()
        return self._spool.read(offset, size)

    def _discard(self) -> None:
        if self._upload is not None:
            self._upload.abort()
        self._drop_base()
        self._spool.close()
