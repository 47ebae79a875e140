"""`FolderMaker`: makes the pending directories into which nothing is delivered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from fs.base import FS

from sftp_gateway.folder_rows import FolderRows, PendingFolder
from sftp_gateway.logs import log_event
from sftp_gateway.refusals import is_for_good, pause
from sftp_gateway.status import status_of

AT_ONCE = 8  # by one thread


class FolderMaker:
    """Owned by a `Delivery`, whose threads use it. Thread-safe: has no state but the rows."""

    def __init__(self, filesystem: FS, rows: FolderRows, *, label: str) -> None:
        self._filesystem: Any = filesystem
        self._forget: Callable[[str], None] = getattr(filesystem, "forget", lambda _path: None)
        self._rows = rows
        self._label = label

    def choose(self, now: float, *, quiet_seconds: float) -> tuple[list[PendingFolder], float | None]:
        """Return directories to be made now, noted as such; and when others are due, None where there are none."""
        due, later = self._rows.due(now, quiet_seconds=quiet_seconds, limit=AT_ONCE)
        return (self._rows.send(due) if due else []), later

    def make(self, chosen: list[PendingFolder]) -> None:
        """Make directories; what goes wrong is noted and tried again, or logged where that would be in vain."""
        for folder in chosen:
            try:
                self._forget(folder.path)  # another process may have removed what was there
                self._filesystem.makedirs(folder.path, recreate=True)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is noted, and tried again if that is not vain
                self._failed(folder, error)
            else:
                self._rows.made(folder.path)

    def _failed(self, folder: PendingFolder, error: Exception) -> None:
        reason = status_of(error)[1]
        if is_for_good(error, folder.attempts):
            self._rows.dropped(folder.key)
            log_event("undeliverable", level=logging.ERROR, user=self._label, path=folder.path + "/", reason=reason)
        else:
            self._rows.failed(folder.key, reason, time.time() + pause(folder.attempts))
