"""`Journal`: a client whose changes the test writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fs_dropbox.api.client import Longpoll, Page
from fs_dropbox.entries import Entry


class Journal:
    """Stands for the client: cursors count entries, and pages have two of them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.errors: dict[str, list[Exception]] = {"latest": [], "continue": [], "longpoll": []}
        self.backoff_seconds = 0.0
        self.polls: list[float] = []
        self.cursors_taken = 0
        self.looks = 0  # at what follows a cursor
        self.changed = threading.Condition()
        self.interrupted = threading.Event()

    def add(self, *entries: Entry) -> None:
        with self.changed:
            self.entries += entries
            self.changed.notify_all()

    def fail(self, call: str, *errors: Exception) -> None:
        with self.changed:
            self.errors[call] += errors
            self.changed.notify_all()

    def latest_cursor(self, path: str) -> str:
        self._raise("latest")
        with self.changed:
            self.cursors_taken += 1
            return str(len(self.entries))

    def list_folder_continue(self, cursor: str) -> Page:
        self._raise("continue")
        self.looks += 1
        start = int(cursor)
        return Page(
            self.entries[start : start + 2], str(min(start + 2, len(self.entries))), start + 2 < len(self.entries)
        )

    def longpoll(self, cursor: str, timeout_seconds: int, is_over: Callable[[], bool]) -> Longpoll:
        self.polls.append(time.monotonic())
        with self.changed:
            while len(self.entries) <= int(cursor) and not self.errors["longpoll"] and not is_over():
                self.changed.wait(0.01)
        self._raise("longpoll")
        return Longpoll(len(self.entries) > int(cursor), self.backoff_seconds)

    def interrupt(self, thread_id: int | None) -> None:
        self.interrupted.set()

    def _raise(self, call: str) -> None:
        with self.changed:
            if self.errors[call]:
                raise self.errors[call].pop(0)
