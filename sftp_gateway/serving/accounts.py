"""One filesystem and `Tree` per FS URL: opened once, shared by its sessions, closed when idle. Knows no SSH."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import fs.errors
from fs.base import FS

from sftp_gateway.config import GatewayConfig, scheme_of
from sftp_gateway.files.one_at_a_time import one_at_a_time
from sftp_gateway.files.partials import Partials
from sftp_gateway.files.tree import Tree, TreeLimits
from sftp_gateway.sftp.status import words_of
from sftp_gateway.write_back.filesystem import WriteBackFS

_MAX_OPENINGS = 64
_SWEEP_SECONDS = 3600.0  # between two searches for uploads that broke off long ago

_logger = logging.getLogger(__name__)


class AccountRefusedError(Exception):
    """The storage refused the URL's credentials, or the URL is unusable."""


class RootMissingError(Exception):
    """A user's configured root directory does not exist, or is a file."""


class AccountUnreachableError(Exception):
    """The storage did not answer; the credentials may well be right."""


class Lease:
    """A session's share of an account: use `tree` until `release()`, which is idempotent."""

    def __init__(self, account: _Account, release: Callable[[_Account], None]) -> None:
        self._account: _Account | None = account
        self._release = release
        self.tree = account.tree

    def require_directory(self, path: str, *, create: bool) -> None:
        """Make sure that a directory exists; with `create`, create it. Asks the storage once per account and directory.

        Raises `RootMissingError`, or `AccountUnreachableError` if the storage fails to answer.
        """
        account = self._account
        if account is None or path in account.known_directories:
            return
        try:
            if create:
                account.filesystem.makedirs(path, recreate=True)
            elif not account.filesystem.isdir(path):
                raise RootMissingError(f"there is no folder {path}; make it, or set create_root")
        except fs.errors.DirectoryExpected:
            raise RootMissingError(f"{path} is a file") from None
        except fs.errors.FSError as error:
            raise AccountUnreachableError(words_of(error)) from None
        account.known_directories.add(path)

    def release(self) -> None:
        account, self._account = self._account, None
        if account is not None:
            self._release(account)


class _Account:
    """An open filesystem and its tree; the counts are guarded by the lock of `Accounts`."""

    def __init__(self, filesystem: FS, tree: Tree, now: float) -> None:
        self.filesystem = filesystem
        self.tree = tree
        self.known_directories: set[str] = set()  # users' roots that existed at an earlier login
        self.sessions = 0
        self.retired = False
        """No longer in the table: closed when no session uses it any more."""
        self.outdated = False
        """Its wrapper has changed: the next `acquire` that finds it without a session reopens it."""
        self.checked_at = now
        self.idle_since = now

    @property
    def is_delivering(self) -> bool:
        """Whether files wait here to be delivered."""
        return isinstance(self.filesystem, WriteBackFS) and self.filesystem.is_busy

    @property
    def state(self) -> Mapping[str, object]:
        """The state that the filesystem reports."""
        try:
            return self.filesystem.getmeta("state") or {}
        except fs.errors.FSError:  # it is being closed
            return {}

    def close(self) -> None:
        try:
            self.tree.close()
        finally:
            self.filesystem.close()


class Accounts:
    """Open accounts by a keyed digest of their FS URL; the URL itself, which holds secrets, is not kept.

    Owned by `SFTPGateway`. One lock over the table; opening and closing run unlocked, each in a thread of its own.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        open_filesystem: Callable[[str], FS],
        secret: bytes,
        wrap: Callable[[str, str, FS], FS] = lambda key, url, filesystem: filesystem,  # noqa: ARG005
        shared: bool = False,
    ) -> None:
        """`wrap` receives the key, URL and filesystem of an account being opened; returns the filesystem to be used.

        `shared`: other processes open the same accounts.
        """
        self.configure(config)
        self._open_filesystem = open_filesystem
        self._spool_directory = config.state_path / "spool"
        self._secret = secret
        self._tree_limits = TreeLimits(
            spool_quota=config.spool_quota_bytes, partial_seconds=config.partial_seconds, shared=shared
        )
        self._wrap = wrap
        self._lock = threading.Lock()
        # guarded by _lock
        self._open: dict[str, _Account] = {}
        self._opening: dict[str, Future[_Account]] = {}
        self._retired: list[_Account] = []  # out of `_open`, and not closed yet
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self._sweep_at = 0.0

    def acquire(self, url: str) -> Lease:
        """Return a lease on the URL's account for a session, opening the account first if it is not open.

        Raises `AccountRefusedError` or `AccountUnreachableError`; the latter also without an answer in `open_seconds`.
        """
        key = self.key(url)
        deadline = time.monotonic() + self._config.open_seconds
        while True:
            with self._lock:
                account = self._open.get(key)
                if account is not None and account.outdated and not account.sessions:
                    self._retire_locked(key)
                    account = None
                if account is not None and time.monotonic() - account.checked_at <= self._config.recheck_seconds:
                    account.sessions += 1
                    return Lease(account, self._release)
                opening = self._opening.get(key) or self._start_opening_locked(key, url)
            try:
                account = opening.result(max(0.0, deadline - time.monotonic()))
            except FutureTimeoutError:
                raise AccountUnreachableError(f"no answer within {self._config.open_seconds:g} s") from None
            with self._lock:
                if not account.retired:
                    account.sessions += 1
                    return Lease(account, self._release)

    def key(self, url: str) -> str:
        """Return the name of the URL's account on disk, which reveals nothing about the URL."""
        return hmac.new(self._secret, url.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    def drain(self, seconds: float) -> None:
        """Deliver as much as possible of what waits in the journals of the open accounts, within `seconds`."""
        deadline = time.monotonic() + seconds
        with self._lock:
            filesystems = [account.filesystem for account in self._open.values()]
        for filesystem in filesystems:
            if isinstance(filesystem, WriteBackFS):
                filesystem.drain(max(0.0, deadline - time.monotonic()))

    @property
    def gauges(self) -> dict[str, int]:
        """The state of the open accounts, by the names of the metrics' gauges; never waits for a storage."""
        with self._lock:
            accounts = list(self._open.values())
        states = [account.state for account in accounts]
        return {
            "accounts": len(accounts),
            "accounts_throttled": sum(bool(state.get("throttled", False)) for state in states),
            "accounts_unfollowed": sum(not state.get("followed", True) for state in states),
            "spool_bytes": sum(account.tree.store.quota.used for account in accounts),
        }

    def configure(self, config: GatewayConfig) -> None:
        """Use the times in these settings from now on."""
        self._config = config

    def renew(self, url: str) -> None:
        """Have the URL's account reopened the next time that it is acquired while no session uses it."""
        with self._lock:
            account = self._open.get(self.key(url))
            if account is not None:
                account.outdated = True

    def close_idle(self) -> None:
        """Close accounts that have been idle for a while; now and then, drop old broken uploads. Never waits."""
        now = time.monotonic()
        with self._lock:
            for key, account in list(self._open.items()):
                is_idle = account.sessions == 0 and now - account.idle_since >= self._config.account_idle_seconds
                if is_idle and not account.is_delivering:
                    self._retire_locked(key)
            self._close_unused_locked()
            if now >= self._sweep_at and not self._closed:
                with contextlib.suppress(RuntimeError):  # no more threads
                    self._start_thread_locked(self._sweep)
                    self._sweep_at = now + _SWEEP_SECONDS

    def close(self, timeout: float = 10.0) -> bool:
        """Close every account; return whether all threads have ended within `timeout` seconds. Idempotent."""
        with self._lock:
            self._closed = True
            for key in list(self._open):
                self._retire_locked(key)
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                threads = list(self._threads)
            if not threads:
                return True
            if time.monotonic() >= deadline:
                return False
            threads[0].join(max(0.0, deadline - time.monotonic()))

    def _release(self, account: _Account) -> None:
        with self._lock:
            account.sessions -= 1
            account.idle_since = time.monotonic()
            self._close_unused_locked()

    def _retire_locked(self, key: str) -> None:
        """Remove an account from the table; it is closed when its last session ends, or now if it has none."""
        account = self._open.pop(key)
        account.retired = True
        self._retired.append(account)
        self._close_unused_locked()

    def _close_unused_locked(self) -> None:
        """Close accounts that are not in the table and have no session; if no thread can start, at the next call."""
        with contextlib.suppress(RuntimeError):
            for account in [account for account in self._retired if account.sessions == 0]:
                self._start_thread_locked(self._close, account)
                self._retired.remove(account)

    def _start_opening_locked(self, key: str, url: str) -> Future[_Account]:
        if self._closed:
            raise AccountUnreachableError("the server is stopping")
        if len(self._opening) >= _MAX_OPENINGS:
            raise AccountUnreachableError("too many accounts are being opened at once")
        opening: Future[_Account] = Future()
        try:
            self._start_thread_locked(self._run_opening, key, url, opening)
        except RuntimeError as error:  # no more threads
            raise AccountUnreachableError(f"the gateway is at its limits: {error}") from None
        self._opening[key] = opening
        return opening

    def _run_opening(self, key: str, url: str, opening: Future[_Account]) -> None:
        """Open the URL, which also checks again whether the storage still accepts an open account's credentials."""
        try:
            account = self._opened(key, url)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told, and the next login tries again
            with self._lock:
                del self._opening[key]
            opening.set_exception(error)
        else:
            with self._lock:
                del self._opening[key]
                stopping = self._closed
                if not stopping and not account.retired:  # an idle account may have been retired during its recheck
                    self._open[key] = account
            if stopping:
                self._close(account)
                opening.set_exception(AccountUnreachableError("the server is stopping"))
            else:
                opening.set_result(account)

    def _opened(self, key: str, url: str) -> _Account:
        started = time.monotonic()
        try:
            filesystem = _open(self._open_filesystem, url)
        except AccountRefusedError:
            with self._lock:
                if key in self._open:
                    self._retire_locked(key)
            raise
        with self._lock:
            known = self._open.get(key)
            if known is not None:
                known.checked_at = started
                known.idle_since = time.monotonic()
        if known is not None:
            self._close(filesystem)
            return known
        try:
            filesystem = self._wrap(key, url, one_at_a_time(filesystem))
            tree = Tree(filesystem, spool_directory=self._spool_directory / key, limits=self._tree_limits)
        except Exception as error:
            self._close(filesystem)
            raise AccountUnreachableError(f"the gateway cannot keep what it needs: {_reason(error, url)}") from error
        return _Account(filesystem, tree, started)

    def _sweep(self) -> None:
        """Drop broken uploads that have waited too long, including those of accounts that are not open."""
        with self._lock:
            accounts = dict(self._open)
        for account in accounts.values():
            account.tree.store.drafts.sweep()
        before = time.time() - self._tree_limits.partial_seconds
        with contextlib.suppress(FileNotFoundError):  # no upload has broken off yet
            for folder in self._spool_directory.iterdir():
                if folder.name not in accounts:
                    Partials(folder).drop_old(before)

    def _start_thread_locked(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name="sftp-gateway-account", daemon=True)
        thread.start()
        self._threads.add(thread)  # before the thread discards itself: that waits for the lock, held here

    @staticmethod
    def _close(opened: FS | _Account) -> None:
        try:
            opened.close()
        except Exception:
            _logger.exception("a filesystem could not be closed")


def _open(open_filesystem: Callable[[str], FS], url: str) -> FS:
    """Open the URL; no exception raised here contains the URL, which holds secrets."""
    try:
        return open_filesystem(url)
    except fs.errors.RemoteConnectionError as error:
        raise AccountUnreachableError(_reason(error, url)) from None
    except (fs.opener.errors.UnsupportedProtocol, fs.opener.errors.EntryPointError):
        which = f"{scheme}:// URLs" if (scheme := scheme_of(url)) else "such a URL"
        raise AccountUnreachableError(f"no filesystem is installed for {which}") from None
    except fs.errors.CreateFailed as error:
        cause = getattr(error, "exc", None) or error.__cause__
        unreachable = isinstance(cause, fs.errors.RemoteConnectionError)
        raise (AccountUnreachableError if unreachable else AccountRefusedError)(_reason(error, url)) from None
    except (fs.errors.FSError, fs.opener.errors.OpenerError, fs.opener.errors.ParseError) as error:
        raise AccountRefusedError(_reason(error, url)) from None
    except Exception as error:  # noqa: BLE001 - a login must end in an answer, whatever a filesystem raises
        _logger.error("opening a filesystem raised %s", type(error).__name__)  # its text could hold the URL
        raise AccountUnreachableError(f"opening it failed with {type(error).__name__}") from None


def _reason(error: Exception, url: str) -> str:
    return str(getattr(error, "reason", None) or words_of(error)).replace(url, "***")
