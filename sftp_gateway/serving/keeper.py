"""`Keeper`: makes sure that files in journals are delivered even if nobody signs in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from sftp_gateway.logs import log_event
from sftp_gateway.serving.accounts import AccountRefusedError, Accounts, AccountUnreachableError
from sftp_gateway.write_back.journals import Journals

KEEP_SECONDS = 2.0
_MAX_BACKOFF_SECONDS = 300.0


class Keeper:
    """One thread that opens accounts whose journals hold files that no process delivers. Owned by the gateway.

    There are such files after a start, and after another process of the gateway has died. The keeper knows only the
    URLs of configured users: URLs are stored in the configuration, never in a journal.
    """

    def __init__(self, accounts: Accounts, journals: Journals, urls: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """`urls` returns the names and FS URLs of the configured users."""
        self._accounts = accounts
        self._journals = journals
        self._urls = urls
        self._stopping = threading.Event()
        self._delays: dict[str, tuple[float, float]] = {}  # the last pause and the time of the next try, by key
        self._thread = threading.Thread(target=self._run, name="sftp-gateway-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread, which begins to look at once."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Stop; return whether the thread has ended within `seconds`. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._journals.exist():
                    self._look()
            except Exception:
                logging.getLogger(__name__).exception("it is not known which files wait for their delivery")
            self._stopping.wait(KEEP_SECONDS)

    def _look(self) -> None:
        urls = [(name, self._accounts.key(url), url) for name, url in self._urls()]
        wanted = self._journals.adopt({key: url for _, key, url in urls})
        for name, key, url in urls:
            pause, due = self._delays.get(key, (KEEP_SECONDS, 0.0))
            if self._stopping.is_set() or time.monotonic() < due:
                continue
            is_waiting = self._journals.waits(key) and not self._journals.is_attended(key)
            if not is_waiting and key not in wanted:
                self._delays.pop(key, None)
                continue
            try:
                self._accounts.acquire(url).release()
            except (AccountRefusedError, AccountUnreachableError) as error:
                if key not in self._delays:
                    log_event("delayed", level=logging.WARNING, user=name, reason=str(error))
                self._delays[key] = min(2 * pause, _MAX_BACKOFF_SECONDS), time.monotonic() + pause
