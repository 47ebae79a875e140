"""Folders of a disk: renamed at once, with links in them, in layers, with a quota."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.mountfs import MountFS
from fs.multifs import MultiFS
from fs.osfs import OSFS
from fs.subfs import SubFS

from sftp_gateway.files.allowance import Allowance
from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W
from tests.sftp_gateway.without_doors import Serving


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a directory, in which a file is, and a link to what is none of its user's."""
    home = tmp_path / "home"
    (home / "d" / "sub").mkdir(parents=True)
    (home / "d" / "sub" / "file").write_text("mine")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "precious").write_text("precious")
    (home / "d" / "link").symlink_to(tmp_path / "others")
    return home


@pytest.fixture
def filesystem(home: Path) -> FS:
    return OSFS(str(home))


def test_a_directory_is_renamed_and_not_copied(client: RawClient, home: Path) -> None:
    number = (home / "d" / "sub" / "file").stat().st_ino
    assert client.wait(client.rename("/d", "/new")).ok
    assert (home / "new" / "sub" / "file").stat().st_ino == number
    assert (home / "new" / "link").is_symlink()
    assert (home.parent / "others" / "precious").read_text() == "precious"
    assert sorted(path.name for path in home.iterdir()) == ["new"]


def test_what_a_directory_cannot_be_renamed_to_is_refused(client: RawClient, home: Path) -> None:
    (home / "full" / "x").mkdir(parents=True)
    for request in (client.rename("/d", "/full"), client.posix_rename("/d", "/full")):
        assert client.wait(request).code == Status.FAILURE
    assert client.wait(client.rename("/d", "/missing/d")).code == Status.NO_SUCH_FILE
    assert (home / "d" / "sub" / "file").read_text() == "mine"


def test_a_directory_goes_to_another_disk_unless_links_are_in_it(
    client: RawClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("sftp_gateway.files.names.os.rename", refuse)
    assert client.wait(client.rename("/d", "/new")).code == Status.FAILURE
    assert (home.parent / "others" / "precious").read_text() == "precious"
    assert client.wait(client.rename("/d/sub", "/new")).ok
    assert (home / "new" / "file").read_text() == "mine"
    assert [path.name for path in (home / "d").iterdir()] == ["link"]


def _mounted(home: Path) -> FS:
    outer = MountFS()
    outer.mount("one", OSFS(str(home)))
    return SubFS(outer, "/one")


def _layered(home: Path) -> FS:
    outer = MultiFS()
    outer.add_fs("lower", OSFS(str(home)))
    outer.add_fs("upper", MemoryFS(), write=True)
    return outer


@pytest.mark.parametrize("make", [_mounted, _layered])
def test_what_is_behind_links_stays_where_directories_are_copied(
    home: Path, tmp_path: Path, make: Callable[[Path], FS]
) -> None:
    with make(home) as filesystem:
        serving = Serving(filesystem, tmp_path / "spool")
        client = serving.raw()
        for name in ("/d", "/d/link"):
            assert not client.wait(client.rename(name, "/new")).ok
        assert client.wait(client.stat("/new")).code == Status.NO_SUCH_FILE
        serving.close()
    assert (home.parent / "others" / "precious").read_text() == "precious"
    assert (home / "d" / "sub" / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["/a", "/a/b", "/a/b/sub"])
def test_what_is_mounted_stays_where_it_is(tmp_path: Path, name: str) -> None:
    """A `MountFS` would take it into memory, where there is nothing else."""
    inner = MemoryFS()
    inner.makedir("/sub")
    inner.writebytes("/sub/f", b"content")
    filesystem = MountFS()
    filesystem.mount("a/b", inner)
    with filesystem:
        serving = Serving(filesystem, tmp_path / "spool")
        client = serving.raw()
        assert client.wait(client.rename(name, "/a/b/new")).ok == (name == "/a/b/sub")
        assert client.wait(client.posix_rename(name, "/new")).code in (Status.FAILURE, Status.NO_SUCH_FILE)
        assert inner.readbytes("/new/f" if name == "/a/b/sub" else "/sub/f") == b"content"
        serving.close()


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[tuple[Path, Path, RawClient]]:
    """Two folders, one over the other, and a client that sees both."""
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    upper.mkdir()
    (lower / "d").mkdir(parents=True)
    (lower / "d" / "f").write_text("lower")
    (lower / "out").symlink_to(tmp_path)
    (upper / "dangling").symlink_to(tmp_path / "not there yet")
    (tmp_path / "secret").write_text("secret")
    layered = MultiFS()
    layered.add_fs("lower", OSFS(str(lower)), priority=1)
    layered.add_fs("upper", OSFS(str(upper)), priority=2, write=True)
    with layered:
        serving = Serving(layered, tmp_path / "spool")
        yield upper, lower, serving.raw()
        serving.close()


def test_folders_in_layers(layers: tuple[Path, Path, RawClient]) -> None:
    upper, lower, client = layers
    assert client.get("/d/f") == b"lower"
    assert sorted(client.list("/")) == [".", "..", "d", "out"]
    client.put("/new", b"content")
    assert client.wait(client.mkdir("/e")).ok
    assert client.get("/new") == (upper / "new").read_bytes() == b"content"
    assert (upper / "e").is_dir()
    assert client.wait(client.remove("/d/f")).ok
    assert os.listdir(lower / "d") == []


@pytest.mark.parametrize("path", ["/out", "/out/secret", "/out/new", "/dangling"])
def test_no_link_leads_out_of_layers(layers: tuple[Path, Path, RawClient], path: str) -> None:
    upper, _, client = layers
    for request in (client.stat(path), client.open(path, R), client.open(path, W | C | T), client.remove(path)):
        assert client.wait(request).code == Status.PERMISSION_DENIED
    assert sorted(found.name for found in upper.parent.iterdir() if found.name != "spool") == [
        "lower",
        "secret",
        "upper",
    ]


def test_links_do_not_count_for_a_quota(home: Path, filesystem: FS) -> None:
    """Neither what they lead to, nor in circles; and one that leads nowhere keeps nobody from uploading."""
    (home / "broken").symlink_to("nowhere")
    (home / "d" / "circle").symlink_to(home)
    (home / "d" / "sub" / "circle").symlink_to(home)
    allowance = Allowance(filesystem, "/", max_bytes=100)
    assert allowance.usage(1000, 0) == (100, len("mine"))


def test_names_that_are_not_utf_8_are_those_of_the_disk(client: RawClient, home: Path) -> None:
    """A disk may have several of one spelling otherwise, and whoever mirrors it would lose them."""
    for name in (b"caf\xe9", b"caf\xea"):
        (home / os.fsdecode(name)).write_bytes(name)
        assert client.get(f"/{os.fsdecode(name)}") == name
    assert sorted(client.list("/")) == [".", "..", "caf\udce9", "caf\udcea", "d"]
    reply = client.wait(client.path(Kind.REALPATH, b"/d/../caf\xe9"))
    assert [name for name, *_ in reply.names] == ["/caf\udce9"]
    client.put("/new\udcff", b"content")
    assert client.wait(client.rename("/new\udcff", "/n\udcfe")).ok
    assert client.wait(client.mkdir("/m\udcfd")).ok
    assert client.wait(client.remove("/caf\udcea")).ok
    assert client.wait(client.stat("/caf\udcea")).code == Status.NO_SUCH_FILE
    assert sorted(os.listdir(os.fsencode(home))) == [b"caf\xe9", b"d", b"m\xfd", b"n\xfe"]


def test_what_was_cut_off_under_such_a_name_is_gone_on_with(serving: Serving, home: Path) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened(b"/caf\xe9", W | C | T)
    assert client.wait(client.write(handle, 0, b"0123456789")).ok
    session.cut()
    client = serving.raw()
    assert client.wait(client.stat("/caf\udce9")).attributes.size == 9
    handle = client.opened(b"/caf\xe9", W | C)
    assert all(reply.ok for reply in client.all([client.write(handle, 9, b"9"), client.close(handle)]))
    assert (home / os.fsdecode(b"caf\xe9")).read_bytes() == b"0123456789"
