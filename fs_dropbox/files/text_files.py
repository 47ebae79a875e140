"""`TextFile`: text over the binary files of this package. Knows nothing of Dropbox."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

from fs.mode import Mode

from fs_dropbox.files.all_or_nothing import AllOrNothing, tell_forgotten


class TextFile(AllOrNothing, io.TextIOWrapper):
    """Text over a Dropbox file: an exception in its `with` block discards what was written, as with binary files."""

    _is_aborted = False

    def close(self) -> None:
        """Write what is held back, and commit; where that goes wrong discard everything, or a part would be stored."""
        if not (self.closed or self._is_aborted):
            try:
                self.flush()
            except BaseException:
                self.abort()
                raise
        super().close()

    def __del__(self) -> None:
        # Forgotten without close(): as with binary files, nothing says that it is complete.
        with suppress(ValueError):  # it was never made, or what is below it was taken away
            if not self.closed:
                tell_forgotten(self.buffer.raw)  # type: ignore[attr-defined]
                self.abort()

    def abort(self) -> None:
        """Discard what was written, and close."""
        self._is_aborted = True
        raw: Any = self.buffer
        while not hasattr(raw, "abort"):
            raw = raw.raw
        raw.abort()
        raw.close()
        with suppress(ValueError):  # the text that has not reached the file yet is refused by it
            self.close()


class _BufferedRandom(io.BufferedRandom):
    """One whose `read1`, with which text is read, writes first what waits to be written: Python's does from 3.13 on.

    Before, it would read elsewhere, and write elsewhere later.
    """

    def read1(self, size: int = -1, /) -> bytes:
        self.flush()
        return super().read1(size)


def text_file(binary: Any, mode: Mode, *, encoding: str, errors: str | None, newline: str) -> TextFile:
    """Return a binary file of this package as text."""
    buffered: Any
    if mode.reading and mode.writing:
        buffered = _BufferedRandom(binary)
    else:
        buffered = io.BufferedReader(binary) if mode.reading else io.BufferedWriter(binary)
    try:
        return TextFile(buffered, encoding=encoding, errors=errors, newline=newline, line_buffering=False)
    except BaseException:  # an unknown encoding, for one: once forgotten, the buffer would commit an empty file
        binary.abort()
        binary.close()
        raise
