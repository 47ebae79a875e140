"""Faults at random, of the calls that change a tree and look at it; and what an emulator is asked, as it comes in."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.control.control import Control

LONGPOLL: Final = "files/list_folder/longpoll"
FEED: Final = (LONGPOLL, "files/list_folder/continue", "files/list_folder/get_latest_cursor")
# A session is committed once at most.
SESSIONS: Final = frozenset({"files/upload_session/finish", "files/upload_session/finish_batch_v2"})
CHANGES: Final = (
    *sorted(SESSIONS),
    "files/upload",
    "files/create_folder_v2",
    "files/delete_v2",
    "files/move_v2",
    "files/copy_v2",
    "files/delete_batch",
    "files/move_batch_v2",
    "files/copy_batch_v2",
)
ROUTES: Final = (
    "*",
    *CHANGES,
    *CHANGES,
    "files/restore",
    "files/get_metadata",
    "files/get_metadata",
    "files/list_folder",
    "files/list_revisions",
    "files/delete_batch/check",
    "files/move_batch/check_v2",
    "files/copy_batch/check_v2",
    "files/upload_session/start",
    "files/upload_session/start_batch",
    "files/upload_session/append_v2",
    "files/upload_session/append_batch",
)
FAULTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("rate_limit", {"retry_after": 0}),
    ("server_error", {}),
    ("server_error", {"status": 503}),
    ("too_many_write_operations", {}),
    ("too_many_write_operations", {"entries": 3}),
    ("expired_token", {}),
    ("blank_body", {}),
    ("cut_request", {}),
    ("reset", {}),
    ("cut_body", {}),
    ("ambiguous", {}),
    ("ambiguous", {}),
    ("ambiguous", {"reset": True}),
    ("ambiguous", {"status": 500}),
    ("ambiguous", {"status": 502}),
    ("ambiguous", {"done": 0}),
    ("ambiguous", {"done": 2}),
)


class Watch:
    """Sees every call that an emulator gets, before it is carried out. Thread-safe, but for `meanwhile`."""

    def __init__(self, emulator: Emulator) -> None:
        self._faults = emulator.service.faults
        self._take = self._faults.take
        self._faults.take = self._see
        self._lock = threading.Lock()
        self._quiet = 0  # guarded by _lock
        self.meanwhile: list[tuple[int, Callable[[], object]]] = []
        """What is to happen before a call, after so many others."""
        self.struck: list[tuple[str, str]] = []
        """Route and kind of the faults so far."""

    def _see(self, route: str, argument: str) -> Any:
        if self._quiet:
            return None
        if route not in FEED and self.meanwhile:
            left, happen = self.meanwhile.pop()
            if left:
                self.meanwhile.append((left - 1, happen))
            else:
                happen()
        fault = self._take(route, argument)
        if fault is not None:
            self.struck.append((route, fault.kind))
        return fault

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let no fault strike."""
        with self._lock:
            self._quiet += 1
        try:
            yield
        finally:
            with self._lock:
                self._quiet -= 1


def declare(control: Control, chance: random.Random, *, may_be_late: bool) -> str:
    """Declare a fault; return it in words."""
    if may_be_late and chance.random() < 0.3:
        route, count, after = chance.choice(CHANGES), chance.choice((1, 1, 2)), chance.choice((0, 0, 1))
        control.fault(route, "late", count, after)
        return f"fault {route} late x{count} after {after}"
    kind, parameters = chance.choice(FAULTS)
    route = chance.choice(CHANGES if kind == "ambiguous" and chance.random() < 0.7 else ROUTES)
    count, after = chance.choice((1, 1, 1, 2, 3, 8)), chance.choice((0, 0, 0, 1, 2))
    control.fault(route, kind, count, after, **dict(parameters))
    return f"fault {route} {kind} {parameters} x{count} after {after}"
