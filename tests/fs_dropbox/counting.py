"""Calls that a block of code costs, counted by the emulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fs_dropbox.emulator import Emulator

# Signing in and the change feed are paid once for each filesystem, whatever is done with it.
OVERHEAD = {
    "oauth2/token",
    "users/get_current_account",
    "files/list_folder/get_latest_cursor",
    "files/list_folder/longpoll",
}
DEADLINE_SECONDS = 30.0


@contextmanager
def calls(emulator: Emulator) -> Iterator[Counter[str]]:
    """Count the calls in a block, without those that are paid once."""
    emulator.control.reset_counts()
    counted: Counter[str] = Counter()
    yield counted
    counted.update({route: count for route, count in emulator.control.calls().items() if route not in OVERHEAD})
