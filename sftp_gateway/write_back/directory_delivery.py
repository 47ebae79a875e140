"""`DirectoryMaker`: makes the pending directories into which nothing is delivered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from fs.base import FS

from sftp_gateway.logs import log_event
from sftp_gateway.sftp.status import status_of
from sftp_gateway.write_back.directory_rows import DirectoryRows, PendingDirectory
from sftp_gateway.write_back.refusals import is_for_good, pause

AT_ONCE = 8  # by one thread


class DirectoryMaker:
    """Owned by a `Delivery`, whose threads use it. Thread-safe: has no state but the rows."""

    def __init__(self, filesystem: FS, rows: DirectoryRows, *, label: str) -> None:
        self._filesystem: Any = filesystem
        self._forget: Callable[[str], None] = getattr(filesystem, "forget", lambda _path: None)
        self._rows = rows
        self._label = label

    def choose(self, now: float, *, quiet_seconds: float) -> tuple[list[PendingDirectory], float | None]:
        """Return directories to be made now, noted as such; and when others are due, None where there are none."""
        due, later = self._rows.due(now, quiet_seconds=quiet_seconds, limit=AT_ONCE)
        return (self._rows.send(due) if due else []), later

    def make(self, chosen: list[PendingDirectory]) -> None:
        """Make directories; what goes wrong is noted and tried again, or logged where that would be in vain."""
        for directory in chosen:
            try:
                self._forget(directory.path)  # another process may have removed what was there
                self._filesystem.makedirs(directory.path, recreate=True)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is noted, and tried again if that is not vain
                self._failed(directory, error)
            else:
                self._rows.made(directory.path)

    def _failed(self, directory: PendingDirectory, error: Exception) -> None:
        reason = status_of(error)[1]
        if is_for_good(error, directory.attempts):
            self._rows.dropped(directory.key)
            log_event("undeliverable", level=logging.ERROR, user=self._label, path=directory.path + "/", reason=reason)
        else:
            self._rows.failed(directory.key, reason, time.time() + pause(directory.attempts))
