"""Two processes over one account and one spool folder: each sees what the other's clients left unfinished."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import fs
import pytest

from fs_dropbox.emulator import Emulator
from sftp_gateway.files import notes, partials
from sftp_gateway.files.store import Store
from sftp_gateway.files.tree import Rights, TreeLimits
from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W
from tests.sftp_gateway.without_doors import Serving

CONTENT = bytes(range(256)) * 400


@contextmanager
def two(tmp_path: Path, *, shared: bool = True) -> Iterator[tuple[Serving, Serving]]:
    """What two processes have: nothing in common but the storage and the folder (a lock counts per open file)."""
    storage = AtomicFS()
    first, second = (Serving(storage, tmp_path, limits=TreeLimits(shared=shared)) for _ in range(2))
    try:
        yield first, second
    finally:
        first.close()
        second.close()


def cut_off(serving: Serving, path: str, content: bytes, flags: int = W | C | T, offset: int = 0) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened(path, flags)
    assert client.wait(client.write(handle, offset, content)).ok
    session.cut()


def size(client: RawClient, path: str) -> int | None:
    reply = client.wait(client.stat(path))
    return reply.attributes.size if reply.kind == Kind.ATTRS else None


def finish(client: RawClient, path: str) -> None:
    have = size(client, path)
    assert have is not None
    handle = client.opened(path, W)
    assert client.wait(client.write(handle, have, CONTENT[have:])).ok
    assert client.wait(client.close(handle)).ok


def test_an_upload_that_was_cut_off_goes_on_through_another_process(tmp_path: Path) -> None:
    with two(tmp_path) as (first, second):
        watching = first.raw()
        cut_off(first, "/file", CONTENT[:1001])
        client = second.raw()
        assert client.list("/")["file"].size == 1000
        finish(client, "/file")
        assert client.get("/file") == CONTENT
        assert watching.list("/")["file"].size == len(CONTENT)
        assert not list(tmp_path.iterdir())


def test_it_goes_to_and_fro(tmp_path: Path) -> None:
    with two(tmp_path) as (first, second):
        one, other = first.raw(), second.raw()
        cut_off(first, "/file", CONTENT[:1001])
        assert size(other, "/file") == size(one, "/file") == 1000
        cut_off(second, "/file", CONTENT[1000:3001], W, 1000)
        assert size(one, "/file") == size(other, "/file") == 3000
        cut_off(first, "/file", CONTENT[3000:7001], W, 3000)
        finish(other, "/file")
        assert one.get("/file") == CONTENT


def test_who_writes_it_has_it_alone(tmp_path: Path) -> None:
    with two(tmp_path) as (first, second):
        cut_off(first, "/file", CONTENT[:1001])
        one, other = first.raw(), second.raw()
        time.sleep(0.05)  # beyond the tick of the file system's clock
        assert size(one, "/file") == size(other, "/file") == 1000
        handle = one.opened("/file", W)
        assert other.wait(other.open("/file", W)).code == 2
        assert one.wait(one.write(handle, 1000, CONTENT[1000:])).ok
        assert one.wait(one.close(handle)).ok
        assert other.get("/file") == CONTENT


@pytest.mark.parametrize("how", ["remove", "replace"])
def test_what_one_process_drops_is_gone_for_the_other(tmp_path: Path, how: str) -> None:
    with two(tmp_path) as (first, second):
        cut_off(first, "/file", CONTENT[:1001])
        one, other = first.raw(), second.raw()
        assert size(other, "/file") == 1000
        if how == "remove":
            assert other.wait(other.remove("/file")).ok
        else:
            other.put("/file", b"new")
            assert other.wait(other.remove("/file")).ok
        assert one.wait(one.open("/file", W)).code == 2
        assert size(one, "/file") is None
        assert not list(tmp_path.iterdir())


def test_of_two_who_want_it_at_once_one_gets_it(tmp_path: Path) -> None:
    with two(tmp_path) as (first, second):
        clients = [first.raw(), second.raw()]
        for number in range(20):
            path = f"/file {number}"
            cut_off(first, path, CONTENT[:1001])
            start = threading.Barrier(2)
            got: list[tuple[RawClient, bytes]] = []

            def want(client: RawClient, path: str = path, start: threading.Barrier = start, got: list = got) -> None:  # type: ignore[type-arg]
                start.wait(20)
                reply = client.wait(client.open(path, W))
                if reply.kind == Kind.HANDLE:
                    got.append((client, reply.handle))

            threads = [threading.Thread(target=want, args=(client,)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert len(got) == 1
            client, handle = got[0]
            assert client.wait(client.write(handle, 1000, CONTENT[1000:])).ok
            assert client.wait(client.close(handle)).ok
            assert clients[0].get(path) == CONTENT


def test_processes_that_share_nothing_keep_theirs_to_themselves(tmp_path: Path) -> None:
    with two(tmp_path, shared=False) as (first, second):
        cut_off(first, "/file", CONTENT[:1001])
        assert size(second.raw(), "/file") is None
        finish(first.raw(), "/file")


def test_a_partial_is_read_through_another_process(tmp_path: Path) -> None:
    with two(tmp_path) as (first, second):
        cut_off(first, "/file", CONTENT[:1001])
        client = second.raw()
        handle = client.opened("/file", R)
        assert client.wait(client.read(handle, 0, 2000)).data == CONTENT[:1000]


def test_what_another_process_goes_on_with_is_not_dropped_for_its_space(tmp_path: Path) -> None:
    with two(tmp_path) as (first, second):
        cut_off(first, "/file", CONTENT[:1001])
        one, session = first.raw(), second.session()
        assert size(one, "/file") == 1000
        other = session.raw()
        handle = other.opened("/file", W)
        assert other.wait(other.write(handle, 1000, CONTENT[1000:2001])).ok
        assert first.tree.store.drafts.make_room()  # of which the first does not know yet that it is in use
        session.cut()
        assert size(one, "/file") == 2000
        finish(one, "/file")
        assert one.get("/file") == CONTENT


def test_what_a_killed_process_left_goes_on_through_every_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its spool file holds a byte more than its note vouches for."""
    monkeypatch.setattr(notes, "NOTE_BYTES", 100)
    killed = Serving(AtomicFS(), tmp_path / "spool", limits=TreeLimits(shared=True, spool_memory=10))
    client = killed.raw()
    handle = client.opened("/file", W | C | T)
    assert client.wait(client.write(handle, 0, CONTENT[:1001])).ok
    shutil.copytree(tmp_path / "spool", tmp_path / "left")
    killed.close()
    with two(tmp_path / "left") as (first, second):
        one, other = first.raw(), second.raw()
        assert size(one, "/file") == size(other, "/file") == 1000
        cut_off(first, "/file", CONTENT[1000:2001], W, 1000)
        assert size(other, "/file") == 2000
        finish(other, "/file")
        assert one.get("/file") == CONTENT


def test_a_process_without_room_leaves_a_partial_to_others(tmp_path: Path) -> None:
    with two(tmp_path) as (first, _):
        cut_off(first, "/file", CONTENT[:1001])
        Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits(shared=True, spool_quota=10)).close()
        finish(first.raw(), "/file")


@pytest.mark.parametrize("call", ["os.open", "pathlib.Path.read_text"])
def test_a_process_that_is_out_of_descriptors_forgets_no_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with two(tmp_path, shared=False) as (first, _):
        cut_off(first, "/file", CONTENT[:1001])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        if call == "os.open":  # once it was seen that nobody has it locked
            patched.setattr(partials, "is_locked", lambda _: False)
        patched.setattr(call, refuse)
        Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits()).close()
    with two(tmp_path, shared=False) as (first, _):
        finish(first.raw(), "/file")


def test_what_a_drop_box_has_left_is_known_to_its_own_process(tmp_path: Path) -> None:
    """Which does not hear of what another one puts in its place."""
    with two(tmp_path) as (first, second):
        box, other = (serving.session(rights=Rights.WRITE_ONLY).raw() for serving in (first, second))
        box.put("/f", b"left")
        assert size(other, "/f") is None
        assert other.wait(other.remove("/f")).code == Status.PERMISSION_DENIED
        second.raw().put("/f", b"theirs")
        assert box.wait(box.remove("/f")).ok


def test_what_another_process_has_just_made_is_there_for_whoever_needs_it(tmp_path: Path) -> None:
    """Clients with several connections make a directory through one and upload into it through another."""
    with Emulator() as emulator, ExitStack() as stack:
        url = f"{emulator.fs_url}&change_feed=off&cache_ttl_seconds=3600"
        accounts = [stack.enter_context(fs.open_fs(url)) for _ in range(2)]
        one, other = (
            stack.enter_context(closing(Serving(account, tmp_path, limits=TreeLimits(shared=True)))).raw()
            for account in accounts
        )
        assert not {*other.list("/")} - {".", ".."}  # so it knows what there is not
        assert one.wait(one.mkdir("/made")).ok
        other.put("/made/file", b"content")
        one.put("/part", b"1")
        assert other.wait(other.rename("/part", "/whole")).ok
        assert one.get("/made/file") == b"content"
        assert not other.wait(other.remove("/never")).ok
