"""One filesystem for each URL: opened once, shared, asked again, closed when idle."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fs.errors
import fs.opener.errors
import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS

from sftp_gateway.config import GatewayConfig
from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.files.partials import Partials
from sftp_gateway.serving.accounts import AccountRefusedError, Accounts, AccountUnreachableError
from sftp_gateway.sftp.packets import NO_ATTRIBUTES, OpenFlag
from tests.waiting import eventually

URL = "dropbox://KEY~SECRET:TOKEN@/"
MakeAccounts = Callable[..., Accounts]


class Storage:
    """Opens memory filesystems; counts, and fails or waits as it is told."""

    def __init__(self) -> None:
        self.opened: list[MemoryFS] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, url: str) -> FS:
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        self.opened.append(MemoryFS())
        return self.opened[-1]


@pytest.fixture
def storage() -> Storage:
    return Storage()


def config(**settings: Any) -> GatewayConfig:
    return GatewayConfig(**({"open_seconds": 10.0, "account_idle_seconds": 0.0, "recheck_seconds": 60.0} | settings))


@pytest.fixture
def make(storage: Storage, tmp_path: Path) -> Iterator[MakeAccounts]:
    with ExitStack() as stack:

        def make(**settings: Any) -> Accounts:
            wrap = settings.pop("wrap", lambda _key, _url, opened: opened)
            accounts = Accounts(
                config(state_folder=str(tmp_path), **settings), open_filesystem=storage, secret=b"secret", wrap=wrap
            )
            stack.callback(accounts.close)
            return accounts

        stack.callback(storage.gate.set)
        yield make


def test_parallel_logins_open_once_and_share(make: MakeAccounts, storage: Storage) -> None:
    accounts = make()
    storage.gate.clear()
    leases: list[Any] = []
    threads = [threading.Thread(target=lambda: leases.append(accounts.acquire(URL))) for _ in range(10)]
    for thread in threads:
        thread.start()
    storage.gate.set()
    for thread in threads:
        thread.join()
    assert len(storage.opened) == 1
    assert len({id(lease.tree) for lease in leases}) == 1
    for lease in leases:
        lease.release()


def test_another_password_is_another_account(make: MakeAccounts, storage: Storage) -> None:
    accounts = make()
    first = accounts.acquire(URL)
    storage.error = fs.errors.CreateFailed("the refresh token was refused")
    with pytest.raises(AccountRefusedError, match="the refresh token was refused"):
        accounts.acquire(URL.replace("TOKEN", "GUESS"))
    first.release()


def test_an_account_is_closed_when_its_last_session_has_left_for_a_while(make: MakeAccounts, storage: Storage) -> None:
    accounts = make()
    one, two = accounts.acquire(URL), accounts.acquire(URL)
    one.release()
    one.release()
    accounts.close_idle()
    assert not storage.opened[0].isclosed()
    two.release()
    accounts.close_idle()
    eventually(storage.opened[0].isclosed)
    accounts.acquire(URL).release()
    assert len(storage.opened) == 2


def test_an_idle_account_stays_open_for_its_time(make: MakeAccounts, storage: Storage) -> None:
    accounts = make(account_idle_seconds=3600.0)
    accounts.acquire(URL).release()
    accounts.close_idle()
    accounts.acquire(URL).release()
    assert len(storage.opened) == 1
    assert not storage.opened[0].isclosed()


def test_an_account_that_is_closed_before_anybody_has_it_is_opened_again(
    make: MakeAccounts, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = make()
    result = Future.result

    def late(opening: Future[Any], timeout: float | None = None) -> Any:
        account = result(opening, timeout)
        if len(storage.opened) == 1:
            accounts.close_idle()
        return account

    monkeypatch.setattr(Future, "result", late)
    lease = accounts.acquire(URL)
    assert len(storage.opened) == 2
    assert not storage.opened[1].isclosed()
    lease.release()


def test_idle_is_who_has_no_session_not_who_was_opened_long_ago(
    make: MakeAccounts, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("sftp_gateway.serving.accounts.time", Mock(monotonic=lambda: now, time=time.time))
    accounts = make(account_idle_seconds=300.0)
    lease = accounts.acquire(URL)
    now += 1000.0
    lease.release()
    for seconds in (0.0, 299.0):
        now += seconds
        accounts.close_idle()
        assert accounts.gauges["accounts"] == 1
    now += 2.0
    accounts.close_idle()
    assert not accounts.gauges["accounts"]
    eventually(storage.opened[0].isclosed)


def test_a_revoked_token_is_noticed_at_the_next_login(make: MakeAccounts, storage: Storage) -> None:
    accounts = make(recheck_seconds=0.0)
    lease = accounts.acquire(URL)
    storage.error = fs.errors.CreateFailed("revoked")
    with pytest.raises(AccountRefusedError, match="revoked"):
        accounts.acquire(URL)
    assert not storage.opened[0].isclosed()
    lease.release()
    eventually(storage.opened[0].isclosed)


def test_asking_again_keeps_the_open_filesystem(make: MakeAccounts, storage: Storage) -> None:
    accounts = make(recheck_seconds=0.0)
    first, second = accounts.acquire(URL), accounts.acquire(URL)
    assert first.tree is second.tree
    assert [opened.isclosed() for opened in storage.opened] == [False, True]
    first.release()
    second.release()


def test_an_account_that_is_closed_while_it_is_asked_again_is_opened_anew(
    make: MakeAccounts, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = make(recheck_seconds=0.0)
    accounts.acquire(URL).release()
    close = MemoryFS.close

    def closed(filesystem: MemoryFS) -> None:
        if filesystem in storage.opened[1:2]:  # not one of an earlier test, collected just now
            accounts.close_idle()
            accounts.configure(config())
        close(filesystem)

    monkeypatch.setattr(MemoryFS, "close", closed)
    lease = accounts.acquire(URL)
    assert [opened.isclosed() for opened in storage.opened[1:]] == [True, False]
    lease.release()


def test_an_account_of_which_something_has_changed_is_opened_anew_once_nobody_has_it(
    make: MakeAccounts, storage: Storage
) -> None:
    accounts = make(account_idle_seconds=300.0)
    first = accounts.acquire(URL)
    accounts.renew(URL)
    second = accounts.acquire(URL)
    assert second.tree is first.tree, "two trees of one account would know nothing of each other"
    first.release()
    second.release()
    third = accounts.acquire(URL)
    assert third.tree is not first.tree
    eventually(storage.opened[0].isclosed)
    third.release()


def test_asking_again_is_enough_for_a_while(
    make: MakeAccounts, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("sftp_gateway.serving.accounts.time", Mock(monotonic=lambda: now, time=time.time))
    accounts = make(recheck_seconds=60.0)
    lease = accounts.acquire(URL)
    for seconds, opened in ((50.0, 1), (50.0, 2), (50.0, 2), (50.0, 3)):
        now += seconds
        accounts.acquire(URL).release()
        assert len(storage.opened) == opened
    lease.release()


def test_after_a_refusal_the_next_login_asks_anew(make: MakeAccounts, storage: Storage) -> None:
    accounts = make()
    storage.error = fs.errors.CreateFailed("no")
    with pytest.raises(AccountRefusedError):
        accounts.acquire(URL)
    storage.error = None
    accounts.acquire(URL).release()


@pytest.mark.parametrize(
    "error",
    [
        fs.errors.RemoteConnectionError(msg="down"),
        fs.errors.CreateFailed(exc=fs.errors.RemoteConnectionError(msg="down")),
        RuntimeError(f"a bug, and {URL} in its text"),
        fs.opener.errors.UnsupportedProtocol(URL),
    ],
)
def test_what_is_no_fault_of_the_credentials(make: MakeAccounts, storage: Storage, error: Exception) -> None:
    storage.error = error
    with pytest.raises(AccountUnreachableError) as caught:
        make().acquire(URL)
    assert "TOKEN" not in str(caught.value)


def test_no_error_carries_the_url(make: MakeAccounts, storage: Storage) -> None:
    storage.error = fs.opener.errors.ParseError(f"{URL} is not a filesystem URL")
    with pytest.raises(AccountRefusedError) as caught:
        make().acquire(URL)
    assert "TOKEN" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_storage_that_does_not_answer_is_waited_for_only_so_long(make: MakeAccounts, storage: Storage) -> None:
    accounts = make(open_seconds=0.05)
    storage.gate.clear()
    with pytest.raises(AccountUnreachableError, match=r"no answer within 0\.05 s"):
        accounts.acquire(URL)
    storage.gate.set()
    eventually(lambda: len(storage.opened) == 1)


def test_so_many_are_opened_at_once_and_no_more(
    make: MakeAccounts, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that does not answer costs a thread for each account, whoever asks."""
    monkeypatch.setattr("sftp_gateway.serving.accounts._MAX_OPENINGS", 2)
    accounts = make(open_seconds=0.1)
    storage.gate.clear()
    for number, reason in enumerate(("no answer", "no answer", "too many accounts are being opened")):
        with pytest.raises(AccountUnreachableError, match=reason):
            accounts.acquire(f"{URL}{number}")
    storage.gate.set()
    eventually(lambda: len(storage.opened) == 2)
    eventually(lambda: not accounts._opening)
    accounts.acquire(f"{URL}2").release()


def test_closing_closes_what_is_open_and_waits_for_openings(make: MakeAccounts, storage: Storage) -> None:
    accounts = make(open_seconds=1.0)
    accounts.acquire(URL).release()
    storage.gate.clear()
    with pytest.raises(AccountUnreachableError):
        accounts.acquire("dropbox://OTHER:TOKEN@/")
    assert not accounts.close(timeout=0.05)
    storage.gate.set()
    assert accounts.close()
    assert [opened.isclosed() for opened in storage.opened] == [True, True]
    with pytest.raises(AccountUnreachableError, match="stopping"):
        accounts.acquire(URL)


def test_urls_are_not_kept(make: MakeAccounts) -> None:
    accounts = make()
    lease = accounts.acquire(URL)
    assert "TOKEN" not in repr(vars(accounts)) + repr(vars(lease))
    lease.release()


@pytest.mark.parametrize("what", ["wrap", "spool"])
def test_an_account_without_its_local_files_is_refused_with_the_reason_and_tried_again(
    make: MakeAccounts, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", "/state")

    is_broken = True
    accounts = make(wrap=lambda _key, _url, opened: refuse() if what == "wrap" and is_broken else opened)
    with monkeypatch.context() as patched:
        if what == "spool":
            patched.setattr(Partials, "load", refuse)
        with pytest.raises(AccountUnreachableError, match=r"cannot keep what it needs: .*Permission denied"):
            accounts.acquire(URL)
    assert storage.opened[0].isclosed()
    is_broken = False
    accounts.acquire(URL).release()


def test_an_account_that_gets_no_thread_is_tried_again(make: MakeAccounts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    accounts = make()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(AccountUnreachableError, match="can't start new thread"):
            accounts.acquire(URL)
    accounts.acquire(URL).release()
    assert accounts.close()


def test_an_account_that_gets_no_thread_to_be_closed_in_is_closed_later(
    make: MakeAccounts, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the session that leaves it then leaves all the same."""
    accounts = make(account_idle_seconds=0.0)
    lease = accounts.acquire(URL)
    storage.error = fs.errors.PermissionDenied("revoked")
    accounts.configure(config(recheck_seconds=0.0))
    with pytest.raises(AccountRefusedError):
        accounts.acquire(URL)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        lease.release()
        accounts.close_idle()
    assert not storage.opened[0].isclosed()
    accounts.close_idle()
    eventually(storage.opened[0].isclosed)


@pytest.mark.parametrize("is_open", [True, False])
def test_what_was_cut_off_long_ago_is_dropped_although_nobody_comes_back(
    make: MakeAccounts, storage: Storage, tmp_path: Path, is_open: bool
) -> None:
    accounts = make(account_idle_seconds=0.0)
    lease = accounts.acquire(URL)
    for path in ("/old", "/new"):
        handle = lease.tree.view().open(path, OpenFlag.WRITE | OpenFlag.CREAT, NO_ATTRIBUTES)
        assert isinstance(handle, WriteHandle)
        handle.write(0, b"half of it")
        handle.abort()
    draft = lease.tree.store.looking.current("/old")
    assert draft is not None
    draft.touched -= 2 * config().partial_seconds
    lease.tree.store.drafts.note_again(draft)
    assert len(list(tmp_path.rglob("*.spool"))) == 2
    if not is_open:
        lease.release()
        assert accounts.close()
        accounts = make()
    accounts.close_idle()
    eventually(lambda: len(list(tmp_path.rglob("*.spool"))) == len(list(tmp_path.rglob("*.json"))) == 1)
    assert accounts.acquire(URL).tree.store.looking.current("/new") is not None
