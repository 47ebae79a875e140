"""DropboxFS in front of a server that answers in every way that the API leaves open, and fails as servers do."""

from __future__ import annotations

import random
from pathlib import Path

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.errors import VersionConflict
from tests.fs_dropbox.api.odd_account import OddServer
from tests.fs_dropbox.api.odd_server import serving
from tests.waiting import eventually

QUIRKS = [
    (),
    ("scrambled",),
    ("nulls",),
    ("sparse",),
    ("unmounted",),
    ("strange",),
    ("gone",),
    ("twice",),
    ("pages",),
    ("pages", "reset"),
    ("429",),
    ("429 both",),
    ("429 date",),
    ("503",),
    ("503 changes",),
    ("502 cut",),
    ("409 page",),
    ("gzip",),
    ("chunked",),
    ("unsized",),
    ("closes",),
    ("hints",),
    ("too long",),
    ("too short",),
    ("lost",),
    ("nfd",),
    ("raw",),
    ("scrambled", "nulls", "sparse", "pages", "chunked", "nfd"),
]
STRIKING = {"503", "503 changes", "429", "429 both", "429 date", "502 cut", "409 page", "reset"}
UNCACHED = [("sparse",), ("unmounted",), ("lost",), ("nfd",)]
CONTENT = random.Random(1).randbytes(1_500_000)


@pytest.mark.parametrize(
    ("quirks", "cache"),
    [*((quirks, True) for quirks in QUIRKS), *((quirks, False) for quirks in UNCACHED)],
    ids=[*map(" ".join, QUIRKS), *(f"{' '.join(quirks)}, no cache" for quirks in UNCACHED)],
)
def test_a_server_with_quirks(tmp_path: Path, quirks: tuple[str, ...], cache: bool) -> None:
    odd = OddServer(*quirks)
    with serving(odd, tmp_path) as arguments, DropboxFS(**arguments, cache=cache) as account:
        odd.put("/Ärger/Über/tief.txt", b"deep")
        odd.put("/large", CONTENT)
        for number in range(7):
            odd.put(f"/many/File {number}", f"{number}".encode())
        # Looking
        assert sorted(account.listdir("/")) == sorted(["large", "many", *odd_names(odd, "Ärger")])
        assert sorted(account.listdir("many")) == [f"File {number}" for number in range(7)]
        assert account.getsize("large") == len(CONTENT)
        assert account.readtext("MANY/file 3") == "3"
        assert account.readtext("Ärger/über/TIEF.txt") == "deep"
        assert not account.exists("many/File 9")
        assert not account.exists("Ärger/none")
        assert len(list(account.walk.files("/"))) == 9
        assert [match.path for match in account.glob("many/*4")] == ["/many/File 4"]
        # Reading
        assert account.readbytes("large") == CONTENT
        with account.openbin("large") as file:
            file.seek(1_000_000)
            assert file.read(1000) == CONTENT[1_000_000:1_001_000]
        # Writing
        account.makedirs("new/Größe")
        account.writetext("new/Größe/ä.txt", "1")
        account.writetext("new/Größe/ä.txt", "22")
        assert account.readtext("new/Größe/ä.txt") == "22"
        assert account.getsize("new/Größe/ä.txt") == 2
        with account.open("new/Größe/ä.txt", "a") as text:
            text.write("3")
        assert account.readtext("new/Größe/ä.txt") == "223"
        with pytest.raises(fs.errors.FileExists):
            account.open("new/Größe/ä.txt", "x")
        with pytest.raises(fs.errors.DirectoryExists):
            account.makedir("new")
        # Changing
        account.move("new/Größe/ä.txt", "new/moved")
        account.copy("new/moved", "new/copied")
        account.copydir("many", "copies", create=True)
        assert len(account.listdir("copies")) == 7
        account.movedir("copies", "moved", create=True)
        account.remove("new/copied")
        with pytest.raises(fs.errors.DirectoryNotEmpty):
            account.removedir("moved")
        account.removetree("moved")
        assert sorted(account.listdir("new")) == sorted([*odd_names(odd, "Größe"), "moved"])
        with pytest.raises(fs.errors.ResourceNotFound):
            account.readbytes("moved/File 1")
        assert not odd.quirks & STRIKING or odd.struck


def odd_names(odd: OddServer, name: str) -> list[str]:
    return [path.rpartition("/")[2] for key, (path, *_) in odd.tree.items() if key.endswith(name.lower())]


@pytest.mark.parametrize(
    "quirks", [("scrambled", "nulls"), ("pages", "reset"), ("chunked",), ("strange",), ("hasty",)], ids=" ".join
)
def test_changes_of_others_are_heard(tmp_path: Path, quirks: tuple[str, ...]) -> None:
    odd = OddServer(*quirks)
    with serving(odd, tmp_path) as arguments, DropboxFS(**arguments, cache_ttl_seconds=3600) as account:
        odd.put("/folder/old", b"old")
        assert account.listdir("folder") == ["old"]
        eventually(lambda: account.feed_is_live)
        assert account.listdir("folder") == ["old"]
        odd.put("/folder/new", b"new")
        odd.drop("/folder/old")
        eventually(lambda: account.listdir("folder") == ["new"])
        odd.put("/folder/new", b"newer")
        eventually(lambda: account.readtext("folder/new") == "newer")


@pytest.mark.parametrize("name", ["\u039f\u0394\u039f\u03a3", "\u0130stanbul", "\u1c90", "\ua64a"])
def test_names_that_a_server_lowers_in_its_own_way(tmp_path: Path, name: str) -> None:
    """Final sigmas, letters that become two, letters younger than the table in `paths.key`."""
    odd, path = OddServer(), f"{name}/{name}"
    with serving(odd, tmp_path) as arguments, DropboxFS(**arguments, cache_ttl_seconds=3600) as account:
        account.makedir(name)
        assert account.listdir(name) == []
        account.writetext(path, "1")
        assert account.readtext(path) == "1"
        assert account.listdir("/") == account.listdir(name) == [name]
        assert list(account.walk.files("/")) == [f"/{path}"]
        eventually(lambda: account.feed_is_live)
        assert account.listdir(name) == [name]
        odd.drop(f"/{path}")
        eventually(lambda: not account.exists(path))
        odd.put(f"/{path}", b"2")
        eventually(lambda: account.exists(path))
        assert account.readtext(path) == "2"
        account.removetree(name)
        assert account.listdir("/") == []
        assert not odd.tree


@pytest.mark.parametrize("change", ["move", "copy"])
def test_names_that_a_server_takes_for_one_are_not_put_over_each_other(tmp_path: Path, change: str) -> None:
    """What is in the way would be deleted first."""
    odd = OddServer()
    with serving(odd, tmp_path) as arguments, DropboxFS(**arguments) as account:
        account.writetext("Σς", "1")
        with pytest.raises(fs.errors.OperationFailed, match="the same file"):
            getattr(account, change)("Σς", "ΣΣ", overwrite=True)
        assert "files/delete_v2" not in odd.routes
        assert account.readtext("Σς") == "1"


def test_a_folder_of_which_only_deletions_are_told_is_empty(tmp_path: Path) -> None:
    odd = OddServer("gone")
    with serving(odd, tmp_path) as arguments, DropboxFS(**arguments) as account:
        account.makedir("folder")
        account.writetext("folder/file", "")
        account.remove("folder/file")
        account.removedir("folder")
        assert not odd.tree


def test_an_update_of_what_others_have_changed(tmp_path: Path) -> None:
    odd = OddServer("scrambled")
    with serving(odd, tmp_path) as arguments, DropboxFS(**arguments) as account:
        odd.put("/file", b"1")
        file = account.openbin("file", "ab")
        odd.put("/file", b"theirs")
        file.write(b"2")
        with pytest.raises(VersionConflict):
            file.close()
        assert odd.tree["/file"][2] == b"theirs"


def test_pages_of_a_folder_are_of_one_order(tmp_path: Path) -> None:
    """Whoever reads a folder page by page meets each name once, in whatever order each listing comes."""
    odd = OddServer()
    with serving(odd, tmp_path) as arguments, DropboxFS(**arguments, cache=False) as account:
        names = {f"File {number}" for number in range(20)}
        for name in names:
            odd.put(f"/{name}", b"")
        pages = [account.scandir("/", page=(at, at + 4)) for at in range(0, 20, 4)]
        assert {info.name for page in pages for info in page} == names
