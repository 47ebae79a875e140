"""Files that are renamed, replaced or copied while they are being written, and what becomes of them at CLOSE."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import fs
import pytest
from fs import errors
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from sftp_gateway.files.folding import moved
from sftp_gateway.sftp.packets import Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.files.essential_fs import Essential
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W, s
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually


def copy(client: RawClient, source: bytes, target: bytes) -> int:
    return client.extended("copy-data", s(source), struct.pack(">QQ", 0, 0), s(target), struct.pack(">Q", 0))


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("flags", [W, R | W, W | C | A])
def test_what_is_changed_in_place_may_be_renamed_meanwhile(tmp_path: Path, flags: int, folder: bool) -> None:
    """A rename makes another version in Dropbox, which is our own."""
    with Emulator() as emulator, fs.open_fs(emulator.fs_url) as dropbox:
        emulator.control.seed("/d/f", b"content")
        serving = Serving(dropbox, tmp_path)
        try:
            client = serving.raw()
            handle = client.opened("/d/f", flags)
            old, new = ("/d", "/e") if folder else ("/d/f", "/d/g")
            requests = [client.rename(old, new), client.write(handle, 7, b" and more"), client.close(handle)]
            assert all(reply.ok for reply in client.all(requests)), client.replies
            assert emulator.control.read("/e/f" if folder else "/d/g") == b"content and more"
        finally:
            serving.close()


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_changed_in_place_may_be_renamed_where_that_is_a_copy(tmp_path: Path, folder: bool) -> None:
    """A copy has another time, which tells versions apart where nothing else does."""
    storage = Essential()
    with storage:
        storage.makedir("/d")
        storage.writebytes("/d/f", b"content")
        storage.setinfo("/d/f", {"details": {"modified": 10**9}})
        serving = Serving(storage, tmp_path)
        client = serving.raw()
        handle = client.opened("/d/f", W)
        old, new, path = ("/d", "/e", "/e/f") if folder else ("/d/f", "/d/g", "/d/g")
        assert client.wait(client.rename(old, new)).ok
        assert client.wait(client.write(handle, 7, b" and more")).ok
        storage.setinfo(path, {"details": {"modified": 10**9 + 1}})
        assert client.wait(client.close(handle)).code == Status.FAILURE  # somebody else has changed it since
        handle = client.opened(path, W)
        assert client.wait(client.rename(new, old)).ok
        assert client.wait(client.write(handle, 7, b" and more")).ok
        assert client.wait(client.close(handle)).ok
        assert storage.readbytes("/d/f") == b"content and more"
        serving.close()


def test_a_new_file_is_not_renamed_into_a_directory_that_is_missing(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C | T)
    for rename in (client.rename, client.posix_rename):
        assert client.wait(rename("/f", "/missing/f")).code == Status.NO_SUCH_FILE
    assert client.wait(client.write(handle, 0, b"content")).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.listdir("/") == ["f"]


def test_what_somebody_else_changed_before_the_rename_is_not_overwritten(tmp_path: Path) -> None:
    with Emulator() as emulator, fs.open_fs(emulator.fs_url) as dropbox:
        assert isinstance(dropbox, DropboxFS)
        emulator.control.seed("/f", b"content")
        serving = Serving(dropbox, tmp_path)
        try:
            client = serving.raw()
            assert "f" in client.list("/")
            eventually(lambda: dropbox.feed_is_live, "what changes is not heard of")
            handle = client.opened("/f", W)
            assert client.wait(client.write(handle, 0, b"C")).ok
            emulator.control.write("/f", b"by somebody else")
            eventually(lambda: dropbox.getsize("/f") == 16)
            assert client.wait(client.rename("/f", "/g")).ok
            assert client.wait(client.close(handle)).code == Status.FAILURE
            assert emulator.control.read("/g") == b"by somebody else"
        finally:
            serving.close()


def test_what_somebody_else_changes_amid_the_rename_is_not_overwritten(
    client: RawClient, filesystem: AtomicFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem.commit("/f", b"content")
    handle = client.opened("/f", W)
    assert client.wait(client.write(handle, 0, b"C")).ok
    move = filesystem.move

    def move_late(*arguments: Any, **options: Any) -> None:
        filesystem.commit("/f", b"by somebody else")
        move(*arguments, **options)

    monkeypatch.setattr(filesystem, "move", move_late)
    assert client.wait(client.rename("/f", "/g")).ok
    assert client.wait(client.close(handle)).code == Status.FAILURE
    assert filesystem.readbytes("/g") == b"by somebody else"


@pytest.mark.parametrize("being_written", [False, True])
def test_what_is_being_written_where_something_is_renamed_to_is_given_up(
    client: RawClient, filesystem: AtomicFS, being_written: bool
) -> None:
    handle = client.opened("/g", W | C | T)
    assert client.wait(client.write(handle, 0, b"given up")).ok
    source = client.opened("/f", W | C | T)
    assert client.wait(client.write(source, 0, b"content")).ok
    if not being_written:
        assert client.wait(client.close(source)).ok
    assert client.wait(client.posix_rename("/f", "/g")).ok
    assert "replaced" in client.wait(client.write(handle, 0, b"x")).text
    assert client.wait(client.close(handle)).code == Status.FAILURE
    if being_written:
        assert client.wait(client.close(source)).ok
    assert filesystem.readbytes("/g") == b"content"


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_at_the_new_name_of_a_new_file_by_its_close_is_replaced_if_the_rename_said_so(
    client: RawClient, filesystem: AtomicFS, replace: bool
) -> None:
    handle = client.opened("/a", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    assert client.wait((client.posix_rename if replace else client.rename)("/a", "/b")).ok
    filesystem.commit("/b", b"by somebody else")
    assert client.wait(client.close(handle)).ok is replace
    assert filesystem.readbytes("/b") == (b"content" if replace else b"by somebody else")


@pytest.mark.parametrize("replace", [False, True])
def test_a_new_file_is_renamed_again_and_again_while_it_is_written(
    client: RawClient, filesystem: AtomicFS, replace: bool
) -> None:
    handle = client.opened("/a", W | C | T)
    rename = client.posix_rename if replace else client.rename
    for old, new in ("ab", "bc", "cd"):
        assert client.wait(rename(f"/{old}", f"/{new}")).ok
        assert list(client.list("/")) == [".", "..", new]
    assert client.all([client.write(handle, 0, b"content"), client.close(handle)])[-1].ok
    assert filesystem.listdir("/") == ["d"]
    assert filesystem.readbytes("/d") == b"content"


def test_an_upload_that_was_renamed_can_be_continued(tmp_path: Path, filesystem: AtomicFS) -> None:
    serving = Serving(filesystem, tmp_path / "spool")
    try:
        session = serving.session()
        client = session.raw()
        handle = client.opened("/a", W | C | T)
        client.all([client.write(handle, 0, b"content"), client.posix_rename("/a", "/b")])
        session.cut()
        assert serving.raw().list("/")["b"].size == 6
    finally:
        serving.close()


def test_the_committed_file_goes_along_with_what_is_being_written_in_its_place(
    client: RawClient, filesystem: AtomicFS
) -> None:
    """Two handles have begun the same new file; one of them is closed."""
    first, second = client.opened("/f", W | C | T), client.opened("/f", W | C | T)
    assert client.all([client.write(second, 0, b"second"), client.close(second)])[-1].ok
    assert client.wait(client.rename("/f", "/g")).ok
    assert filesystem.listdir("/") == ["g"]
    assert client.all([client.write(first, 0, b"first"), client.close(first)])[-1].ok
    assert filesystem.listdir("/") == ["g"]
    assert filesystem.readbytes("/g") == b"first"


def test_a_rename_that_fails_ends_no_upload(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/other", b"other")
    filesystem.faults["move"] = errors.RemoteConnectionError("/other")
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    assert client.wait(client.posix_rename("/other", "/f")).code == Status.FAILURE
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == b"content"


@pytest.mark.parametrize("change", ["rename", "remove", "overwrite"])
def test_who_reads_what_it_writes_reads_on_after_the_commit(
    client: RawClient, filesystem: AtomicFS, change: str
) -> None:
    handle = client.opened("/f", W | C | T)
    reader = client.opened("/f", R)
    requests = [client.write(handle, 0, b"content"), client.read(reader, 0, 4), client.close(handle)]
    assert client.all(requests)[1].data == b"cont"
    if change == "overwrite":
        client.put("/f", b"another")
    else:
        assert client.wait(client.rename("/f", "/g") if change == "rename" else client.remove("/f")).ok
    assert client.wait(client.read(reader, 0, 100)).data == b"content"


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_a_directory_is_not_empty_while_a_file_is_written_in_it(
    tmp_path: Path, filesystem: AtomicFS, is_cut_off: bool
) -> None:
    serving = Serving(filesystem, tmp_path / "spool")
    try:
        session, client = serving.session(), serving.raw()
        filesystem.makedirs("/source")
        filesystem.makedirs("/target")
        writer = session.raw()
        assert writer.wait(writer.write(writer.opened("/target/f", W | C | T), 0, b"content")).ok
        if is_cut_off:
            session.cut()
        for request in (client.posix_rename("/source", "/target"), client.rmdir("/target")):
            reply = client.wait(request)
            assert (reply.code, "not empty" in reply.text) == (Status.FAILURE, True)
        assert sorted(filesystem.listdir("/")) == ["source", "target"]
    finally:
        serving.close()


@pytest.mark.parametrize(
    ("begin", "looks"),
    [("create", ("getinfo", "/d")), ("change", ("open", "/d/f")), ("mkdir", ("makedir", "/d/f"))],
)
@pytest.mark.parametrize("change", ["rename", "rmdir"])
def test_what_begins_in_a_directory_that_is_renamed_or_removed_is_not_left_behind(
    tmp_path: Path, filesystem: AtomicFS, begin: str, looks: tuple[str, str], change: str
) -> None:
    """Another session changes the directory after the first has looked at it."""
    serving = Serving(filesystem, tmp_path / "spool")
    try:
        filesystem.makedir("/d")
        if begin == "change":
            filesystem.writebytes("/d/f", b"content")
        filesystem.calls.clear()
        writer, other = serving.raw(), serving.raw()
        with filesystem.stalled(*looks):
            begun = writer.mkdir("/d/f") if begin == "mkdir" else writer.open("/d/f", W | C)
            eventually(lambda: looks in filesystem.calls, "it has not begun")
            changed = other.rename("/d", "/e") if change == "rename" else other.rmdir("/d")
            assert not other.is_answered(changed, within=0.2)
        reply = other.wait(changed)
        assert reply.ok if change == "rename" else "not empty" in reply.text
        if begin != "mkdir":
            handle = writer.wait(begun).handle
            assert writer.all([writer.write(handle, 0, b"C"), writer.close(handle)])[-1].ok
        folder = "e" if change == "rename" else "d"
        assert (filesystem.listdir("/"), filesystem.listdir(folder)) == ([folder], ["f"])
    finally:
        serving.close()


def test_requests_without_waiting_know_the_path_that_a_rename_gives(client: RawClient, filesystem: AtomicFS) -> None:
    """What was opened under another name is closed first, although a READ holds that up."""
    filesystem.writebytes("/a", b"content")
    first = client.opened("/a", R | W)
    with filesystem.stalled("pread", "/a"):
        requests = [client.write(first, 7, b" and more"), client.read(first, 0, 7)]
        requests += [client.posix_rename("/a", "/b"), client.close(first)]
        second = client.open("/b", W | C | T)
        assert not client.is_answered(second, within=0.3), "the CLOSE has not begun"
    handle = client.wait(second).handle
    requests += [client.write(handle, 0, b"second"), client.close(handle)]
    assert [reply for reply in client.all(requests) if not reply.ok and reply.data != b"content"] == []
    assert filesystem.readbytes("/b") == b"second"


@pytest.mark.parametrize(
    ("path", "source", "target", "expected"),
    [
        ("/d/f", "/d", "/new", "/new/f"),
        ("/d/f", "/d/f", "/new", "/new"),
        ("/d/f", "/d", "/", "/f"),
        ("/Caf\u00e9/e/f", "/Cafe\u0301", "/new", "/new/e/f"),  # accents apart: longer
        ("/Cafe\u0301/e/f", "/caf\u00e9/e", "/new/", "/new/f"),
    ],
)
def test_paths_move_along_however_they_are_spelled(path: str, source: str, target: str, expected: str) -> None:
    assert moved(path, source, target) == expected


@pytest.mark.parametrize("change", ["rename", "remove"])
def test_a_copy_outlives_what_it_was_copied_from(client: RawClient, filesystem: AtomicFS, change: str) -> None:
    filesystem.writebytes("/f", b"content")
    source, target = client.opened("/f", R), client.opened("/g", W | C | T)
    assert client.wait(copy(client, source, target)).ok
    gone = client.rename("/f", "/elsewhere") if change == "rename" else client.remove("/f")
    assert all(reply.ok for reply in client.all([gone, client.close(source), client.close(target)]))
    assert filesystem.readbytes("/g") == b"content"


def test_a_copy_is_of_what_was_opened(client: RawClient, filesystem: AtomicFS) -> None:
    """The storage itself could copy only what is at the path by then."""
    filesystem.writebytes("/f", b"opened")
    source, target = client.opened("/f", R), client.opened("/g", W | C | T)
    filesystem.writebytes("/f", b"of somebody else")
    assert client.wait(copy(client, source, target)).ok
    assert client.wait(client.close(target)).ok
    assert filesystem.readbytes("/g") == b"opened"


def test_a_time_that_is_set_before_close_travels_with_a_copy(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"content")
    source, target = client.opened("/f", R), client.opened("/g", W | C | T)
    requests = [copy(client, source, target), client.fsetstat(target, atime=1_500_000_000, mtime=1_500_000_000)]
    assert all(reply.ok for reply in client.all([*requests, client.close(target)]))
    assert client.wait(client.stat("/g")).attributes.mtime == 1_500_000_000
    assert filesystem.readbytes("/g") == b"content"


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_copy_of_what_is_overwritten_meanwhile_is_refused_where_open_files_change(tmp_path: Path, kind: str) -> None:
    with MemoryFS() if kind == "memory" else OSFS(str(tmp_path / "files"), create=True) as filesystem:
        filesystem.writebytes("/f", b"a long content")
        serving = Serving(filesystem, tmp_path / "spool")
        client = serving.raw()
        source, target = client.opened("/f", R), client.opened("/g", W | C | T)
        assert client.wait(copy(client, source, target)).ok
        client.put("/f", b"short")
        assert client.wait(client.close(target)).code == Status.FAILURE
        assert not filesystem.exists("/g")
        serving.close()
