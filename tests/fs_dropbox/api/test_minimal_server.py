"""DropboxFS in front of the least that can stand in for Dropbox: what it lacks costs speed at most."""

from __future__ import annotations

import io
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import fs.errors
import pytest
from fs.memoryfs import MemoryFS

from fs_dropbox import DropboxFS
from fs_dropbox.errors import VersionConflict
from fs_dropbox.metadata.changes import REST_SECONDS
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.transfer import Place
from tests.fs_dropbox.api.minimal_server import MinimalServer, serving
from tests.waiting import eventually

SWITCHES = [
    (),
    ("longpoll",),
    ("unknown 400",),
    ("unknown 501",),
    ("ranges",),
    ("no revs",),
    ("batches",),
    ("batches", "ranges", "longpoll"),
    ("batches", "narrow"),
]
VAGUE = ("batches", "vague")
CONTENT = random.Random(2).randbytes(3_000_000)


@pytest.mark.parametrize("switches", [*SWITCHES, VAGUE], ids=lambda switches: ", ".join(switches) or "nothing")
def test_a_minimal_server(switches: tuple[str, ...]) -> None:
    minimal = MinimalServer(*switches)
    with serving(minimal) as arguments, DropboxFS(**arguments) as account:
        minimal.put("/Large", CONTENT)
        for number in range(6):
            minimal.put(f"/Many/File {number}", f"{number}".encode())
        # Looking
        assert sorted(account.listdir("/")) == ["Large", "Many"]
        assert sorted(account.listdir("many")) == [f"File {number}" for number in range(6)]
        assert account.getinfo("large", ["details"]).modified is not None
        assert not account.exists("many/none")
        assert len(list(account.walk.files("/"))) == 7
        # Reading
        assert account.readbytes("large") == CONTENT
        assert account.readtext("many/file 3") == "3"
        with account.openbin("large") as file:
            file.seek(-1000, 2)
            assert file.read() == CONTENT[-1000:]
            file.seek(10)
            assert file.read(10) == CONTENT[10:20]
        # Writing
        account.makedirs("new/folder")
        account.writetext("new/folder/File", "1")
        account.writetext("new/folder/file", "22")
        with account.open("new/folder/file", "a") as text:
            text.write("3")
        with account.open("new/folder/file", "r+") as text:
            text.write("9")
        assert account.readtext("new/folder/File") == "923"
        with pytest.raises(fs.errors.FileExists):
            account.open("new/folder/file", "x")
        # Changing
        account.move("new/folder/file", "new/moved")
        account.copy("new/moved", "new/copied")
        account.copydir("many", "copies", create=True)
        account.makedir("joined")
        account.movedir("copies", "joined")
        assert sorted(account.listdir("joined")) == [f"File {number}" for number in range(6)]
        account.remove("new/copied")
        with pytest.raises(fs.errors.DirectoryNotEmpty):
            account.removedir("joined")
        account.removetree("joined")
        assert sorted(account.listdir("/")) == ["Large", "Many", "new"]
        with pytest.raises(fs.errors.ResourceNotFound):
            account.readbytes("joined/File 1")
        account.removetree("/")
        assert account.listdir("/") == []
        assert not minimal.files


FEW = [(), ("unknown 400",), ("unknown 501",), ("batches", "narrow")]


@pytest.mark.parametrize("switches", [*FEW, VAGUE], ids=lambda switches: ", ".join(switches) or "nothing")
def test_many_writers(switches: tuple[str, ...]) -> None:
    """In groups as large as they may be, else one by one."""
    minimal = MinimalServer(*switches)
    with serving(minimal) as arguments, DropboxFS(**arguments, change_feed=False) as account:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: account.writetext(f"{number}", f"{number}"), range(100)))
        contents = {key: file["content"] for key, file in minimal.files.items()}
        assert contents == {f"/{number}": f"{number}".encode() for number in range(100)}
        assert len(minimal.unknown) < 10
        if "batches" not in switches:  # where groups as large as that need not come about
            assert account._parts.uploader.small_files.most_files == 1


@pytest.mark.parametrize("switches", [*FEW, VAGUE], ids=lambda switches: ", ".join(switches) or "nothing")
def test_many_files_at_once(switches: tuple[str, ...]) -> None:
    minimal = MinimalServer(*switches)
    local = MemoryFS()
    for number in range(150):
        local.writetext(f"{number}", f"{number}")
    with serving(minimal) as arguments, DropboxFS(**arguments, change_feed=False) as account:
        account.makedir("mirrored")
        with account.opendir("mirrored") as mirrored:
            summary = Mirror(Place(local, "/"), Place(mirrored, "/")).run()
        assert not summary.failures
        assert summary.copied == len(minimal.below("/mirrored")) == 150
        assert minimal.files["/mirrored/77"]["content"] == b"77"
        assert len(minimal.unknown) < 10


@pytest.mark.parametrize("switches", FEW, ids=lambda switches: ", ".join(switches) or "nothing")
def test_files_that_are_sent_ahead(switches: tuple[str, ...]) -> None:
    """As of a gateway with write-back: they become visible one by one where they cannot together."""
    minimal = MinimalServer(*switches)
    with serving(minimal) as arguments, DropboxFS(**arguments, change_feed=False) as account:
        tokens = dict(account.stage_files((partial(io.BytesIO, b"%d" % number), 1) for number in range(9)))
        files = [(f"/{number}", str(token), datetime(2020, 1, 1, tzinfo=UTC), "") for number, token in tokens.items()]
        assert dict(account.commit_files(files)) == dict.fromkeys(range(9), True)
        assert {key: file["content"] for key, file in minimal.files.items()} == {
            f"/{number}": b"%d" % number for number in range(9)
        }


@pytest.mark.parametrize(
    "switches", [(), ("void",), ("untyped",), ("untyped", "batches")], ids=lambda switches: " ".join(switches)
)
def test_a_large_file_where_sessions_take_bytes_in_order_alone(switches: tuple[str, ...]) -> None:
    minimal = MinimalServer(*switches)
    content = random.Random(3).randbytes(45 * 2**20)
    with serving(minimal) as arguments, DropboxFS(**arguments, change_feed=False) as account:
        account.writebytes("large", content)
        assert minimal.files["/large"]["content"] == content


def test_where_no_revs_are_taken_nobody_reads_two_versions() -> None:
    minimal = MinimalServer("no revs")
    with serving(minimal) as arguments, DropboxFS(**arguments) as account:
        minimal.put("/file", b"1")
        with account.openbin("file") as file:
            minimal.put("/file", b"2")
            with pytest.raises(fs.errors.ResourceNotFound):
                file.read()


def test_a_longpoll_that_waits_for_nobody_is_not_asked_all_the_time() -> None:
    minimal = MinimalServer("longpoll")
    with serving(minimal) as arguments, DropboxFS(**arguments) as account:
        account.listdir("/")
        eventually(lambda: len(minimal.polls) >= 3)
    assert minimal.polls[2] - minimal.polls[0] >= 2 * REST_SECONDS - 0.1


def test_a_lost_update_is_refused() -> None:
    minimal = MinimalServer()
    with serving(minimal) as arguments, DropboxFS(**arguments) as account:
        minimal.put("/file", b"1")
        file = account.openbin("file", "ab")
        minimal.put("/file", b"theirs")
        file.write(b"2")
        with pytest.raises(VersionConflict):
            file.close()
        assert minimal.files["/file"]["content"] == b"theirs"
