"""Every fault during every kind of call: the right result, once, or one clear error; never a hang."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fs_dropbox.api import routes
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Client, Commit, Update
from fs_dropbox.api.retry import RetryPolicy, Traffic
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry
from fs_dropbox.errors import ApiError, AuthError, TransportError
from tests.waiting import eventually

MIB = 2**20
numbers = itertools.count()


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults_are_left(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.control.clear_faults()
    emulator.control.options(not_found_after_create_seconds=0.0)


@pytest.fixture
def folder(emulator: Emulator) -> str:
    """A folder of the test's own, with a file and a folder in it."""
    path = f"/Test {next(numbers)}"
    emulator.control.seed(f"{path}/file.txt", b"seeded content")
    emulator.control.seed(f"{path}/folder/inner.txt", b"inner")
    return path


def upload(mode: Any, **arguments: Any) -> Callable[[Client, Emulator, str], None]:
    def operation(client: Client, emulator: Emulator, folder: str) -> None:
        path = f"{folder}/file.txt" if isinstance(mode, type) or mode == "overwrite" else f"{folder}/new.txt"
        rev = str(emulator.control.metadata(f"{folder}/file.txt")["rev"])
        commit = Commit(path, Update(rev) if isinstance(mode, type) else mode, **arguments)
        entry = client.upload(commit, b"new content")
        assert entry.rev == emulator.control.metadata(path)["rev"]
        assert emulator.control.read(path) == b"new content"
        assert len(client.list_revisions(path)) == (1 if path.endswith("new.txt") else 2)

    return operation


def session(client: Client, emulator: Emulator, folder: str) -> None:
    data = b"a" * (4 * MIB) + b"b" * (4 * MIB) + b"tail"
    session_id = client.session_start(concurrent=True)
    client.session_append(session_id, 4 * MIB, data[4 * MIB : 8 * MIB], False)
    client.session_append(session_id, 0, data[: 4 * MIB], False)
    client.session_append(session_id, 8 * MIB, data[8 * MIB :], True)
    entry = client.session_finish(session_id, len(data), Commit(f"{folder}/big", "add"), ContentHash(data).hexdigest())
    assert entry.size == len(data)
    assert emulator.control.read(f"{folder}/big") == data
    assert len(client.list_revisions(f"{folder}/big")) == 1


def sequential_session(client: Client, emulator: Emulator, folder: str) -> None:
    session_id = client.session_start(concurrent=False)
    client.session_append(session_id, 0, b"first,", False)
    client.session_append(session_id, 6, b"second", True)
    content_hash = ContentHash(b"first,second").hexdigest()
    assert client.session_finish(session_id, 12, Commit(f"{folder}/s", "add"), content_hash).size == 12
    assert emulator.control.read(f"{folder}/s") == b"first,second"


def create_folder(client: Client, emulator: Emulator, folder: str) -> None:
    entry = client.create_folder(f"{folder}/made")
    assert isinstance(entry, FolderEntry)
    assert entry.id == emulator.control.metadata(f"{folder}/made")["id"]


def delete(client: Client, emulator: Emulator, folder: str) -> None:
    assert isinstance(client.delete(f"{folder}/folder"), (FolderEntry, DeletedEntry))
    assert not emulator.control.exists(f"{folder}/folder")


def delete_rev(client: Client, emulator: Emulator, folder: str) -> None:
    rev = str(emulator.control.metadata(f"{folder}/file.txt")["rev"])
    client.delete(f"{folder}/file.txt", parent_rev=rev)
    assert not emulator.control.exists(f"{folder}/file.txt")


def move(client: Client, emulator: Emulator, folder: str) -> None:
    before = emulator.control.metadata(f"{folder}/folder")["id"]
    assert client.move(f"{folder}/folder", f"{folder}/moved").id == before  # type: ignore[union-attr]
    assert emulator.control.read(f"{folder}/moved/inner.txt") == b"inner"
    assert not emulator.control.exists(f"{folder}/folder")


def copy_file(client: Client, emulator: Emulator, folder: str) -> None:
    assert isinstance(client.copy(f"{folder}/file.txt", f"{folder}/copy.txt"), FileEntry)
    assert emulator.control.read(f"{folder}/copy.txt") == b"seeded content"


def copy_folder(client: Client, emulator: Emulator, folder: str) -> None:
    assert isinstance(client.copy(f"{folder}/folder", f"{folder}/copy"), FolderEntry)
    assert emulator.control.read(f"{folder}/copy/inner.txt") == b"inner"


def restore(client: Client, emulator: Emulator, folder: str) -> None:
    rev = str(emulator.control.metadata(f"{folder}/file.txt")["rev"])
    emulator.control.write(f"{folder}/file.txt", b"changed")
    client.restore(f"{folder}/file.txt", rev)
    assert emulator.control.read(f"{folder}/file.txt") == b"seeded content"


def download(client: Client, emulator: Emulator, folder: str) -> None:
    assert client.download(f"{folder}/file.txt", 2, 9) == b"seeded content"[2:9]


def listing(client: Client, emulator: Emulator, folder: str) -> None:
    page = client.list_folder(folder)
    assert {entry.name for entry in page.entries} == {"file.txt", "folder"}
    emulator.control.write(f"{folder}/later", b"")
    page = client.list_folder_continue(page.cursor)
    assert [entry.name for entry in page.entries] == ["later"]
    assert client.latest_cursor(folder)


def looks(client: Client, emulator: Emulator, folder: str) -> None:
    assert client.get_metadata(f"{folder}/FILE.txt").name == "file.txt"
    assert len(client.list_revisions(f"{folder}/file.txt")) == 1
    assert client.sharing.temporary_link(f"{folder}/file.txt").startswith("https://")
    assert client.space_usage().allocated > 0


OPERATIONS: dict[str, tuple[Callable[[Client, Emulator, str], None], tuple[str, ...]]] = {
    "add": (upload("add"), ("files/upload",)),
    "exact add": (upload("add", strict_conflict=True), ("files/upload",)),
    "overwrite": (upload("overwrite"), ("files/upload",)),
    "update": (upload(Update), ("files/upload",)),
    "exact update": (upload(Update, strict_conflict=True), ("files/upload",)),
    "session": (
        session,
        ("files/upload_session/start", "files/upload_session/append_v2", "files/upload_session/finish"),
    ),
    "sequential session": (sequential_session, ("files/upload_session/append_v2", "files/upload_session/finish")),
    "create_folder": (create_folder, ("files/create_folder_v2",)),
    "delete": (delete, ("files/delete_v2",)),
    "delete a rev": (delete_rev, ("files/delete_v2",)),
    "move": (move, ("files/move_v2",)),
    "copy a file": (copy_file, ("files/copy_v2",)),
    "copy a folder": (copy_folder, ("files/copy_v2",)),
    "restore": (restore, ("files/restore",)),
    "download": (download, ("files/download",)),
    "listing": (
        listing,
        ("files/list_folder", "files/list_folder/continue", "files/list_folder/get_latest_cursor"),
    ),
    "looks": (
        looks,
        ("files/get_metadata", "files/list_revisions", "files/get_temporary_link", "users/get_space_usage"),
    ),
}
CASES = [
    pytest.param(operation, route, id=f"{name}: {route.rpartition('/')[2]}")
    for name, (operation, faulty) in OPERATIONS.items()
    for route in faulty
]
FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "rate_limit", "retry_after": 0},
    "429 as text": {"kind": "rate_limit", "retry_after": 0, "form": "text"},
    "429 of the lock": {"kind": "rate_limit", "retry_after": 0, "reason": "too_many_write_operations"},
    "500": {"kind": "server_error", "status": 500},
    "503 as HTML": {"kind": "server_error", "status": 503, "text": "<html>busy</html>"},
    "cut request": {"kind": "cut_request"},
    "reset": {"kind": "reset"},
    "blank body": {"kind": "blank_body"},
    "cut answer": {"kind": "cut_body"},
    "lost answer": {"kind": "ambiguous"},
    "lost answer by RST": {"kind": "ambiguous", "reset": True},
    "lost behind a 502": {"kind": "ambiguous", "status": 502},
    "expired token": {"kind": "expired_token"},
    "two in a row": {"kind": "server_error", "status": 500, "count": 2},
    "lost twice": {"kind": "ambiguous", "count": 2},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("operation", "route"), CASES)
def test_one_fault_goes_unnoticed(
    emulator: Emulator,
    client: Client,
    folder: str,
    operation: Callable[[Client, Emulator, str], None],
    route: str,
    fault: str,
) -> None:
    parameters = dict(FAULTS[fault])
    before = emulator.control.faults_struck
    emulator.control.fault(route, parameters.pop("kind"), **parameters)
    operation(client, emulator, folder)
    assert emulator.control.faults_struck > before


@pytest.mark.parametrize("at", ["request", "answer", "body"])
@pytest.mark.parametrize("name", ["add", "session", "create_folder", "delete", "move", "download", "listing"])
def test_a_stall_ends_with_the_timeout(
    emulator: Emulator, make_client: Callable[..., Client], folder: str, name: str, at: str
) -> None:
    client = make_client(timeout_seconds=0.4)
    operation, faulty = OPERATIONS[name]
    emulator.control.fault(faulty[-1], "stall", at=at)
    operation(client, emulator, folder)


@pytest.mark.parametrize(("operation", "route"), CASES)
def test_faults_without_end_end_with_one_clear_error(
    emulator: Emulator,
    client: Client,
    folder: str,
    operation: Callable[[Client, Emulator, str], None],
    route: str,
) -> None:
    emulator.control.fault(route, "server_error", count=None, status=500)
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        operation(client, emulator, folder)
    assert (caught.value.kind, caught.value.route) == ("server", route)
    assert time.monotonic() - began < 20


def test_exact_creation_takes_no_credit_for_the_file_of_another(
    emulator: Emulator, client: Client, folder: str
) -> None:
    """Two create the same empty lock file; who gets no answer must not believe that the other's is its own."""
    emulator.control.write(f"{folder}/lock", b"", client_modified=1_500_000_000)
    emulator.control.fault("files/upload", "server_error", status=502)
    with pytest.raises(ApiError) as caught:
        client.upload(Commit(f"{folder}/lock", "add", strict_conflict=True), b"")
    assert caught.value.tag == ("path", "conflict", "file")
    assert not caught.value.lost_update


def test_a_lost_update_is_told_from_a_conflict(emulator: Emulator, client: Client, folder: str) -> None:
    rev = str(emulator.control.metadata(f"{folder}/file.txt")["rev"])
    emulator.control.write(f"{folder}/file.txt", b"of another")
    with pytest.raises(ApiError) as caught:
        client.upload(Commit(f"{folder}/file.txt", Update(rev)), b"mine")
    assert caught.value.lost_update
    assert caught.value.path == f"{folder}/file.txt"
    with pytest.raises(ApiError) as caught:
        client.delete(f"{folder}/file.txt", parent_rev=rev)
    assert caught.value.lost_update
    assert emulator.control.read(f"{folder}/file.txt") == b"of another"


def test_a_copy_that_did_not_land_takes_no_credit_for_what_is_there(
    emulator: Emulator, client: Client, folder: str
) -> None:
    emulator.control.write(f"{folder}/other/inner.txt", b"different")
    emulator.control.fault("files/copy_v2", "server_error", status=500)
    with pytest.raises(ApiError) as caught:
        client.copy(f"{folder}/folder", f"{folder}/other")
    assert caught.value.tag == ("to", "conflict", "folder")


def test_a_move_is_settled_by_the_id(emulator: Emulator, client: Client, folder: str) -> None:
    source = client.get_metadata(f"{folder}/file.txt")
    emulator.control.write(f"{folder}/target.txt", b"of another")
    emulator.control.delete(f"{folder}/file.txt")
    emulator.control.fault("files/move_v2", "server_error", status=500)
    with pytest.raises(ApiError) as caught:
        client.move(f"{folder}/file.txt", f"{folder}/target.txt", source_id=source.id)
    assert caught.value.tag == ("from_lookup", "not_found")


def test_what_was_just_committed_can_be_moved(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.options(not_found_after_create_seconds=0.4)
    client.upload(Commit(f"{folder}/fresh", "add"), b"x")
    assert client.move(f"{folder}/fresh", f"{folder}/moved").name == "moved"
    client.create_folder(f"{folder}/new")
    assert client.copy(f"{folder}/new", f"{folder}/newer").name == "newer"


def test_what_is_not_there_is_not_waited_for(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.reset_counts()
    with pytest.raises(ApiError):
        client.move(f"{folder}/nothing", f"{folder}/moved")
    assert emulator.control.calls()["files/move_v2"] == 1


def test_a_429_stops_writers_and_no_readers(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.fault("files/upload", "rate_limit", retry_after=3)
    finished: list[float] = []

    def write(number: int) -> None:
        client.upload(Commit(f"{folder}/{number}", "add"), b"x")
        finished.append(time.monotonic())

    emulator.control.reset_counts()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(write, 0)
        thaw = eventually(lambda: client.governor.throttled_until)
        others = [pool.submit(write, number) for number in range(1, 8)]
        assert client.get_metadata(f"{folder}/file.txt").name == "file.txt"
        assert client.download(f"{folder}/file.txt", 0, 3) == b"see"
        assert not finished
        for each in (first, *others):
            each.result()
    assert min(finished) >= thaw
    assert emulator.control.calls()["files/upload"] == 9  # nobody else was refused
    assert client.governor.throttled_until is None


def test_clients_of_one_account_share_the_brake(make_client: Callable[..., Client], emulator: Emulator) -> None:
    first, second = make_client(), make_client()
    other = make_client(access_token=emulator.access_token())
    assert first.governor is second.governor
    assert first.governor is not other.governor


def test_a_wait_that_is_too_long_is_an_error_at_once(
    emulator: Emulator, make_client: Callable[..., Client], folder: str
) -> None:
    client = make_client(access_token=emulator.access_token())  # its brake is its own, and stays on
    emulator.control.fault("files/upload", "rate_limit", retry_after=300)
    began = time.monotonic()
    with pytest.raises(ApiError) as caught:
        client.upload(Commit(f"{folder}/x", "add"), b"")
    assert time.monotonic() - began < 15
    assert caught.value.is_rate_limit
    assert caught.value.retry_after == pytest.approx(300, abs=2)


def test_sixteen_threads_refresh_once(emulator: Emulator, make_client: Callable[..., Client], folder: str) -> None:
    client = make_client(root="home")
    emulator.control.reset_counts()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: client.get_metadata(f"{folder}/file.txt"), range(16)))
        assert emulator.control.calls()["oauth2/token"] == 1
        emulator.control.expire_tokens()
        list(pool.map(lambda _: client.get_metadata(f"{folder}/file.txt"), range(16)))
    assert emulator.control.calls()["oauth2/token"] == 2


def test_the_token_endpoint_may_fail_too(emulator: Emulator, client: Client, folder: str) -> None:
    for kind, parameters in (("server_error", {"status": 500}), ("reset", {}), ("rate_limit", {"retry_after": 0})):
        emulator.control.fault("oauth2/token", kind, **parameters)
    assert client.create_folder(f"{folder}/made").name == "made"


def test_an_access_token_that_expires(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    client = make_client(access_token=emulator.access_token())
    client.account()
    emulator.control.expire_tokens()
    with pytest.raises(AuthError) as caught:
        client.space_usage()
    assert caught.value.tag == ("expired_access_token",)


def test_nothing_listens(make_client: Callable[..., Client]) -> None:
    client = make_client(api_host="127.0.0.1:9", policy=RetryPolicy(attempts=2, first_pause_seconds=0.01))
    with pytest.raises(TransportError) as caught:
        client.account()
    assert (caught.value.kind, caught.value.was_sent) == ("connect", False)


def test_a_certificate_that_nobody_vouches_for(make_client: Callable[..., Client]) -> None:
    client = make_client(ca_certs=None)
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        client.account()
    assert (caught.value.kind, caught.value.was_sent) == ("tls", False)
    assert time.monotonic() - began < 8


def test_close_ends_what_is_under_way(emulator: Emulator, make_client: Callable[..., Client], folder: str) -> None:
    client = make_client(timeout_seconds=60.0, access_token=emulator.access_token())
    client.account()
    emulator.control.fault("files/get_metadata", "stall", at="answer")
    emulator.control.fault("files/upload", "rate_limit", retry_after=15)
    cursor = client.latest_cursor("")

    def kind(call: Callable[[], object]) -> str:
        try:
            call()
        except TransportError as error:
            return error.kind
        return "finished"

    struck = emulator.control.faults_struck
    with ThreadPoolExecutor(3) as pool:
        calls = [
            pool.submit(kind, lambda: client.get_metadata(f"{folder}/file.txt")),
            pool.submit(kind, lambda: client.upload(Commit(f"{folder}/x", "add"), b"x")),
            pool.submit(kind, lambda: client.longpoll(cursor, 30, threading.Event())),
        ]
        eventually(lambda: emulator.control.faults_struck >= struck + 2)
        began = time.monotonic()
        client.close()
        assert [call.result(timeout=30) for call in calls] == ["closed"] * 3
        assert time.monotonic() - began < 10
    assert kind(client.account) != "closed"  # known already
    assert kind(client.space_usage) == "closed"
    emulator.control.release()
    emulator.control.write(f"{folder}/wake", b"")  # ends the longpoll in the emulator
    client.close()


def test_a_longpoll_can_be_stopped(emulator: Emulator, client: Client, folder: str) -> None:
    cursor, stop = client.latest_cursor(""), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ident = pool.submit(threading.get_ident).result()
        poll = pool.submit(client.longpoll, cursor, 30, stop)
        stop.set()
        eventually(lambda: (client.interrupt(ident), poll.done())[1])
        assert not poll.result().changes
        assert client.longpoll(cursor, 30, stop).changes is False
    emulator.control.write(f"{folder}/wake", b"")
    assert client.longpoll(cursor, 30, threading.Event()).changes


def test_the_governor_lets_few_writers_in_at_once(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.latency(commit_seconds=0.05, patience_seconds=0.6)
    try:
        with ThreadPoolExecutor(24) as pool:
            list(pool.map(lambda n: client.upload(Commit(f"{folder}/{n}", "add"), b"x"), range(48)))
    finally:
        emulator.control.latency(commit_seconds=0.0, patience_seconds=1.2)
    assert len(client.list_folder(folder).entries) == 50


def test_credentials_are_not_in_any_error(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    secret = "sl.u.NotARealTokenButASecretAllTheSame"
    client = make_client(access_token=secret)
    with pytest.raises(ApiError) as caught:
        client.account()
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in str(error)
        assert secret not in repr(error)
        error = error.__cause__


def test_connections_that_went_stale(emulator: Emulator, client: Client, folder: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            list(pool.map(lambda _: client.get_metadata(f"{folder}/file.txt"), range(16)))
            emulator.control.drop_connections()
            client.upload(Commit(f"{folder}/file.txt", "overwrite"), b"fresh")
    assert emulator.control.read(f"{folder}/file.txt") == b"fresh"


def test_logs_tell_what_happens_but_no_secret(
    emulator: Emulator, make_client: Callable[..., Client], folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_client()
    emulator.control.fault("files/upload", "server_error", count=3, status=500)
    emulator.control.fault("files/upload", "expired_token", after=3)
    client.upload(Commit(f"{folder}/x", "add"), b"x")
    ours = [record for record in caplog.records if record.name.startswith("fs_dropbox.api.retry")]
    assert [record.levelname for record in ours] == ["DEBUG", "DEBUG", "DEBUG", "WARNING"]
    tokens = list(emulator.service.accounts.tokens)
    for secret in (emulator.app_secret, emulator.refresh_token, *tokens):
        assert secret not in caplog.text


def test_revoked(emulator: Emulator) -> None:
    with Emulator() as own:
        credentials = Credentials(own.app_key, own.app_secret, own.refresh_token)
        client = Client(credentials, api_host=own.host, ca_certs=str(own.ca_file))
        client.account()
        own.control.revoke_tokens()
        for _ in range(2):
            with pytest.raises(AuthError) as caught:
                client.space_usage()
            assert caught.value.tag == ("invalid_access_token",)
        fresh = Client(credentials, api_host=own.host, ca_certs=str(own.ca_file))
        with pytest.raises(AuthError) as caught:
            fresh.account()
        assert caught.value.tag == ("invalid_access_token",)
        client.close()
        fresh.close()


def test_traffic_of_every_route_is_known() -> None:
    for route in routes.ALL:
        assert route.repeatable or route.traffic is Traffic.WRITE
