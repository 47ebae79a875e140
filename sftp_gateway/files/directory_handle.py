"""`DirectoryHandle`: a directory that a client has open, listed in batches."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from sftp_gateway.files.handles import Handle
from sftp_gateway.sftp import attributes, packets
from sftp_gateway.sftp.events import Transfer
from sftp_gateway.sftp.packets import Attributes
from sftp_gateway.sftp.status import EndOfDataError

BATCH_BYTES = 200 * 1024
BATCH_NAMES = 1000
BATCH_SECONDS = 0.25  # a batch that takes longer to collect is sent as it is


class DirectoryHandle(Handle):
    """A directory that is listed, in batches as they become known."""

    def __init__(self, path: str, entries: Iterator[tuple[str, Attributes]], *, at_hand: bool = False) -> None:
        """Read the first entry, so that a directory that cannot be listed raises here.

        `at_hand`: reading an entry never waits.
        """
        super().__init__(path)
        self.at_hand = at_hand
        here = attributes.directory_attributes()
        first = next(entries, None)
        self._entries = itertools.chain([(".", here), ("..", here)], [first] if first is not None else (), entries)
        self.at_end = False  # whether it is known that all entries were collected
        self._ahead: list[bytes] = []
        self._trouble: Exception | None = None  # raised by what comes after `_ahead`

    def next_batch(self) -> list[bytes]:
        """Return the next encoded names, at least one; raises `EndOfDataError` at the end, again and again."""
        self.look_ahead()
        if self._trouble is not None:
            raise self._trouble
        batch, self._ahead = self._ahead, []
        if not batch:
            raise EndOfDataError
        return batch

    def look_ahead(self) -> None:
        """Collect the next batch; an error is raised when the batch is asked for, again and again."""
        try:
            self._ahead = self._ahead or self._collect()
        except Exception as error:  # noqa: BLE001 - raised by `next_batch`
            self._trouble = error

    def _collect(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        now_minutes = int(time.time()) // 60
        until = time.monotonic() + BATCH_SECONDS
        for name, value in self._entries:
            entry = packets.name_entry(name, attributes.line(value, now_minutes), value)
            batch.append(entry)
            size += len(entry)
            if size >= BATCH_BYTES or len(batch) >= BATCH_NAMES or time.monotonic() > until:
                break
        else:
            self.at_end = True
        return batch

    def attributes(self) -> Attributes:
        """Answer FSTAT."""
        return attributes.directory_attributes()

    def close(self) -> Transfer | None:
        """Drop the listing."""
        self._entries, self._ahead = itertools.chain(), []
        return None

    abort = close
