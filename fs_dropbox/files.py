"""File objects: `ReadFile`, and `WriteFile` for every mode that writes. No HTTP."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final

from fs.errors import FSError
from fs.mode import Mode

from fs_dropbox.blocks import BlockReader
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError, fs_errors
from fs_dropbox.spool import Spool
from fs_dropbox.upload import Upload

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

COPY_BYTES: Final = 4 * 2**20
LINE_BYTES: Final = 8 * 1024


class DropboxFile(io.RawIOBase):
    """What reading and writing files share: position, lines, the end of a `with` block."""

    def __init__(self, path: str, mode: Mode, on_close: Callable[[DropboxFile], None]) -> None:
        super().__init__()
        self.name = path
        self.mode = mode.to_platform_bin()
        self._mode = mode
        self._on_close = on_close
        self._lock = threading.RLock()
        # guarded by _lock
        self._position = 0

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.name!r} mode={self.mode!r} {state}>"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception discard instead: half a file is never committed."""
        if kind is not None:
            self.abort()
        self.close()

    def readable(self) -> bool:
        return self._mode.reading

    def writable(self) -> bool:
        return self._mode.writing

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check_open()
        with self._lock:
            if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
                raise ValueError(f"invalid whence: {whence}")
            base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: 0}[whence]
            if whence == io.SEEK_END:
                base = self._length()
            if base + offset < 0:
                raise ValueError(f"negative position: {base + offset}")
            self._position = base + offset
            return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        self._check_reading()
        with self._lock:
            if size is None or size < 0:
                return self.readall()
            data = self._read_at(self._position, size)
            self._position += len(data)
            return data

    def readall(self) -> bytes:
        self._check_reading()
        with self._lock:
            pieces = []
            while piece := self.read(COPY_BYTES):
                pieces.append(piece)
            return b"".join(pieces)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        self._check_reading()
        with self._lock:
            pieces = []
            left = -1 if size is None else size
            while left:
                piece = self._read_at(self._position, LINE_BYTES if left < 0 else min(left, LINE_BYTES))
                if not piece:
                    break
                end = piece.find(b"\n") + 1
                piece = piece[:end] if end else piece
                self._position += len(piece)
                left -= len(piece) if left > 0 else 0
                pieces.append(piece)
                if end:
                    break
            return b"".join(pieces)

    def abort(self, error: Exception | None = None) -> None:
        """Discard what was written; nothing of a file that only reads."""

    def _length(self) -> int:
        raise NotImplementedError

    def _read_at(self, offset: int, size: int) -> bytes:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _check_reading(self) -> None:
        self._check_open()
        if not self._mode.reading:
            raise io.UnsupportedOperation("not open for reading")

    def _check_writing(self) -> None:
        self._check_open()
        if not self._mode.writing:
            raise io.UnsupportedOperation("not open for writing")


class ReadFile(DropboxFile):
    """One revision of a file, whatever happens to the path meanwhile.

    Thread-safe: one lock over the position, held while a read at the position fetches; `pread` and `cached` take none.
    """

    def __init__(
        self, path: str, entry: FileEntry, blocks: BlockReader, on_close: Callable[[DropboxFile], None]
    ) -> None:
        super().__init__(path, Mode("r"), on_close)
        self.version = entry.rev
        self._size = entry.size
        self._blocks = blocks

    def pread(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, fewer only at the end of the file; does not move the position."""
        self._check_open()
        with fs_errors(self.name):
            return self._blocks.read(offset, size)

    def cached(self, offset: int, size: int) -> bytes | None:
        """Return what `pread` would if that needs no request, else None."""
        self._check_open()
        return self._blocks.cached(offset, size)

    def close(self) -> None:
        if not self.closed:
            self._blocks.close()
            super().close()
            self._on_close(self)

    def write(self, data: ReadableBuffer, /) -> int:  # noqa: ARG002 - to refuse it as files do
        raise io.UnsupportedOperation("not open for writing")

    def _length(self) -> int:
        return self._size

    def _read_at(self, offset: int, size: int) -> bytes:
        return self.pread(offset, size)


class WriteFile(DropboxFile):
    """A file in any mode that writes. Nothing of it is visible before `close()`, nothing ever after `abort()`.

    It starts as a stream: what is written in order goes straight into an upload, with a copy on local disk so that the
    writer may still seek back. A writer that seeks, reads or truncates goes on in that copy, the spool, which is then
    uploaded in `close()`. A base (modes r+ and a) is fetched into the spool when it is first needed.
    Thread-safe: one lock over everything, held while a block is handed to the upload.
    """

    def __init__(
        self,
        path: str,
        mode: Mode,
        *,
        open_upload: Callable[[], Upload],
        on_commit: Callable[[FileEntry], None],
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
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._seekable = seekable
        # guarded by _lock
        self._base = base
        self._end = base[0].size if base is not None else 0
        self._changed = base is None
        self._upload: Upload | None = open_upload() if base is None and not mode.reading else None
        self._spool = Spool()
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
            if self._mode.appending:
                self._position = self._end
            if not view:
                return 0
            self._changed = True
            if self._upload is not None and self._position == self._end:
                self._stream(view)
            else:
                self._to_spool()
                self._spool.write(self._position, view)
            self._position += len(view)
            self._end = max(self._end, self._position)
            return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._check_writing()
        with self._changing():
            size = self._position if size is None else size
            if size < 0:
                raise ValueError(f"negative size: {size}")
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
        with self._lock:
            if not self._ended:
                self._ended = True
                self._error = error
                self._discard()

    def close(self) -> None:
        """Commit; raises an `fs.errors` error when Dropbox does not take the file, once: closing again does nothing."""
        if self.closed:
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
            except io.UnsupportedOperation:
                raise
            except (FSError, OSError) as error:
                self.abort(error)
                raise

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
            try:
                entry = self._upload.commit(client_modified=self.modified)
            except (ApiError, TransportError):
                self._on_failure(self.name)  # whatever was known of the path, it is not what Dropbox has
                raise
        self.version = entry.rev
        self._on_commit(entry)

    def _stream(self, view: memoryview) -> None:
        assert self._upload is not None
        with fs_errors(self.name):
            self._upload.write(view)
        if self._seekable:
            self._spool.write(self._end, view)

    def _to_spool(self) -> None:
        """Leave the stream for the local copy."""
        if self._upload is None:
            self._fill()
            return
        if not self._seekable:
            raise io.UnsupportedOperation(f"{self.name} was opened to be written from the first byte to the last")
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
        except (FSError, OSError) as error:
            self.abort(error)  # what is there of it must never be taken for the whole
            raise
        finally:
            blocks.close()

    def _drop_base(self) -> None:
        if self._base is not None:
            self._base[1].close()
            self._base = None
            self._end = 0

    def _length(self) -> int:
        return self._end

    def _read_at(self, offset: int, size: int) -> bytes:
        self._check_not_aborted()
        self._to_spool()
        return self._spool.read(offset, min(size, self._end - offset))

    def _discard(self) -> None:
        if self._upload is not None:
            self._upload.abort()
        if self._base is not None:
            self._base[1].close()
            self._base = None
        self._spool.close()
