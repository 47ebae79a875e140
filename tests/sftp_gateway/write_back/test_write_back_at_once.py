"""Small files of write-back are stored in their session's own thread, unless that would have to wait for more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fs.info import Info

from sftp_gateway.requests import at_once
from sftp_gateway.sftp.packets import Kind
from sftp_gateway.ssh import turns
from tests.sftp_gateway.atomic_fs import KnownFS
from tests.sftp_gateway.conftest import ServeWriteBack
from tests.sftp_gateway.raw_client import C, RawClient, T, W
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, WriteBack
from tests.waiting import eventually

INLINE = 1000


class KnownRemoteFS(RemoteFS, KnownFS):
    """A `RemoteFS` of which everything is known, as long as a test wants that."""

    is_known = True

    def cached_info(self, path: str, namespaces: Any = None) -> Info | None:
        return super().cached_info(path, namespaces) if self.is_known else None


Work = list[Callable[[], object]]


@pytest.fixture
def storage() -> KnownRemoteFS:
    return KnownRemoteFS()


@pytest.fixture
def serving(storage: KnownRemoteFS, start: ServeWriteBack) -> WriteBack:
    return start(delay_seconds=60.0, inline=INLINE)


@contextlib.contextmanager
def without_workers(serving: WriteBack) -> Iterator[Work]:
    """Have nothing carried out that is left to workers; yield what would have been."""
    submitted: Work = []

    def keep(work: Callable[[], object], *, urgent: bool = False) -> None:
        submitted.append(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving.workers, "submit", keep)
        yield submitted
    for work in submitted:
        serving.workers.submit(work)


def written(client: RawClient, path: str, content: bytes = b"small") -> bytes:
    """Write a file and leave it open; return the handle."""
    handle = client.opened(path, W | C | T)
    assert client.wait(client.write(handle, 0, content)).ok
    return handle


def test_a_new_file_is_stored_without_waking_a_worker(serving: WriteBack, storage: KnownRemoteFS) -> None:
    client = serving.raw()
    with without_workers(serving) as submitted:
        assert client.wait(client.close(written(client, "/f"))).ok
        assert not submitted
    assert [(each.path, each.size) for each in serving.pending()] == [("/f", 5)]
    assert [(each.path, each.result) for each in serving.sessions[0].events.transfers] == [("/f", "ok")]
    serving.journal.hurry()
    serving.settled()
    assert [path for path, *_ in storage.commits] == ["/f"]
    assert storage.readbytes("/f") == b"small"


def test_other_sessions_work_while_one_waits_for_the_disk(serving: WriteBack, monkeypatch: pytest.MonkeyPatch) -> None:
    client, seen = serving.raw(), []
    put = serving.journal.put
    monkeypatch.setattr(
        serving.journal, "put", lambda *args, **options: (seen.append(turns.is_taken()), put(*args, **options))[1]
    )
    assert client.wait(client.close(written(client, "/f"))).ok
    assert seen == [False]


@pytest.mark.parametrize(
    "make",
    [
        lambda client, _: written(client, "/large", b"x" * (INLINE + 1)),
        lambda client, _: client.opened("/there", W),
        lambda client, storage: (written(client, "/f"), setattr(storage, "is_known", False))[0],
    ],
    ids=["large", "a change", "unknown by then"],
)
def test_what_may_wait_for_the_storage_is_left_to_a_worker(
    serving: WriteBack, storage: KnownRemoteFS, make: Callable[[RawClient, KnownRemoteFS], bytes]
) -> None:
    storage.writebytes("/there", b"old")
    client = serving.raw()
    handle = make(client, storage)
    assert client.wait(client.write(handle, 0, b"y")).ok
    with without_workers(serving) as submitted:
        closed = client.close(handle)
        assert client.is_answered(client.path(Kind.REALPATH, "/"), within=10)
        assert len(submitted) == 1
        assert not client.is_answered(closed, within=0.01)
        assert not serving.pending()
    assert client.wait(closed).ok
    assert len(serving.pending()) == 1


def test_what_the_quota_has_no_room_for_goes_through_in_a_worker(storage: KnownRemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0, inline=INLINE, quota=3)
    client = serving.raw()
    handle = written(client, "/f")
    with storage.stalled("commit", "/f"):
        closed = client.close(handle)
        eventually(lambda: "/f" in storage.happened("commit"))
        assert client.is_answered(client.path(Kind.REALPATH, "/"), within=10)
        assert not client.is_answered(closed, within=0.01)
    assert client.wait(closed).ok
    assert (storage.readbytes("/f"), serving.pending()) == (b"small", [])
    assert [each.result for each in serving.sessions[0].events.transfers] == ["ok"]


def test_while_its_path_is_being_changed_a_file_is_left_to_a_worker(serving: WriteBack) -> None:
    client = serving.raw()
    handle = written(client, "/d")
    with serving.tree.store.overlay.turn("/"):
        closed = client.close(handle)
        assert client.is_answered(client.path(Kind.REALPATH, "/"), within=10)
        assert not client.is_answered(closed, within=0.01)
    assert client.wait(closed).ok


def test_after_a_slow_disk_a_session_waits_for_it_no_more(serving: WriteBack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "SLOW_SECONDS", 0.0)
    client = serving.raw()
    assert client.wait(client.close(written(client, "/f"))).ok
    handle = written(client, "/g")
    with without_workers(serving) as submitted:
        closed = client.close(handle)
        assert client.is_answered(client.path(Kind.REALPATH, "/"), within=10)
        assert len(submitted) == 1
    assert client.wait(closed).ok
