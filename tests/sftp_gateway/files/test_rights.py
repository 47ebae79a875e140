"""What a user may do and see: its folder whatever links are in it, a drop box."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import fs
import pytest
from fs import errors
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox.emulator import Emulator
from sftp_gateway import UserConfig
from sftp_gateway.files.tree import Rights, Tree
from sftp_gateway.sftp.packets import NO_ATTRIBUTES, Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, StartGateway
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W, X, s
from tests.sftp_gateway.without_doors import Serving, Session

# Symbolic links of a local filesystem.


@pytest.fixture
def local(tmp_path: Path) -> Iterator[tuple[Path, RawClient]]:
    """A folder with links, and a client that sees it."""
    home = tmp_path / "home"
    (home / "user" / "sub").mkdir(parents=True)
    (home / "secret").write_text("secret")
    (home / "user" / "file").write_text("mine")
    (home / "user" / "out").symlink_to(home)
    (home / "user" / "up").symlink_to("../secret")
    (home / "user" / "dangling").symlink_to(tmp_path / "not there yet")
    (home / "user" / "within").symlink_to("sub")
    (home / "user" / "loop").symlink_to("loop")
    with OSFS(str(home)) as storage:
        serving = Serving(storage, tmp_path / "spool")
        yield home, serving.session(root="/user").raw()
        serving.close()


@pytest.mark.parametrize("path", ["/out/secret", "/out", "/up", "/dangling", "/within/../out/secret", "/sub/../up"])
def test_no_link_leads_out_of_the_users_folder(local: tuple[Path, RawClient], tmp_path: Path, path: str) -> None:
    home, client = local
    requests = [
        client.open(path, R), client.open(path, W | C | T), client.open(path, W | C | X), client.open(path, W | A),
        client.stat(path), client.lstat(path), client.remove(path), client.path(Kind.OPENDIR, path),
        client.mkdir(path + "/new"), client.rmdir(path), client.setstat(path, size=0),
        client.setstat(path, mtime=1, atime=1),
        client.rename(path, "/x"), client.rename("/file", path + "/x"), client.posix_rename("/file", path),
        client.extended("copy-data", s(b"0000"), s(b"0000")),
    ]  # fmt: skip
    for request in requests:
        assert client.wait(request).kind == Kind.STATUS
        assert not client.replies[request].ok, client.replies[request]
    assert (home / "secret").read_text() == "secret"
    assert (home / "user" / "file").read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "spool") == ["home"]


def test_links_within_the_folder_work(local: tuple[Path, RawClient]) -> None:
    home, client = local
    client.put("/within/new", b"content")
    assert (home / "user" / "sub" / "new").read_bytes() == b"content"
    assert client.wait(client.stat("/loop")).kind == Kind.STATUS
    assert client.list("/")["file"].size == 4


@pytest.mark.parametrize("path", ["/a\0b", "/\0", "/file\0/../../secret"])
def test_null_characters_lead_nowhere(local: tuple[Path, RawClient], path: str) -> None:
    home, client = local
    for request in (client.open(path, R), client.open(path, W | C), client.stat(path), client.mkdir(path)):
        assert not client.wait(request).ok
        assert client.replies[request].kind == Kind.STATUS
    assert sorted(entry.name for entry in home.iterdir()) == ["secret", "user"]


# Drop boxes.


@pytest.fixture(params=[MemoryFS, AtomicFS], ids=["local", "network"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    storage = request.param()
    storage.makedir("/d")
    storage.writebytes("/theirs", b"theirs")
    storage.writebytes("/d/theirs", b"theirs")
    serving = Serving(storage, tmp_path)
    yield serving
    serving.close()


def leaving(serving: Serving) -> Session:
    return serving.session(rights=Rights.WRITE_ONLY)


def test_a_drop_box_shows_what_the_session_itself_has_left(box: Serving) -> None:
    client, other = leaving(box).raw(), leaving(box).raw()
    client.put("/mine", b"mine")
    client.put("/d/mine", b"mine")
    assert set(client.list("/")) == {".", "..", "d", "mine"}
    assert set(client.list("/d")) == {".", "..", "mine"}
    assert set(other.list("/d")) == {".", ".."}
    for path in ("/theirs", "/d/theirs", "/THEIRS/x"):
        assert client.wait(client.stat(path)).code == Status.NO_SUCH_FILE
        assert client.wait(client.lstat(path)).code == Status.NO_SUCH_FILE
    handle = client.opened("/open", W | C)
    assert "open" in client.list("/")
    assert "open" not in other.list("/")
    assert client.wait(client.stat("/open")).attributes.size == 0
    assert client.wait(client.close(handle)).ok


@pytest.mark.parametrize("flags", [W | C | T, W | C, W | C | A, W | C | X])
def test_a_drop_box_replaces_nothing(box: Serving, flags: int) -> None:
    client = leaving(box).raw()
    reply = client.wait(client.open("/theirs", flags))
    assert (reply.code, reply.text) == (Status.FAILURE, "/theirs: exists already")
    assert client.wait(client.open("/theirs", W)).code == Status.NO_SUCH_FILE
    client.put("/mine", b"mine", flags)
    client.put("/mine", b"mine, and corrected", W | C | T)
    box.tree.store.filesystem.writebytes("/later", b"first")
    assert box.tree.store.filesystem.readbytes("/theirs") == b"theirs"
    assert box.tree.store.filesystem.readbytes("/mine") == b"mine, and corrected"


def test_who_is_second_in_a_drop_box_is_told_and_may_not_remove_what_is_there(box: Serving) -> None:
    client, other = leaving(box).raw(), leaving(box).raw()
    handles = [each.opened("/same", W | C | T) for each in (client, other)]
    for each, handle in zip((client, other), handles, strict=True):
        assert each.wait(each.write(handle, 0, b"x")).ok
    assert client.wait(client.close(handles[0])).ok
    assert other.wait(other.close(handles[1])).text == "/same: exists already"
    assert other.wait(other.remove("/same")).ok  # of what it sent, nothing is there
    assert other.wait(other.remove("/same")).code == Status.PERMISSION_DENIED
    assert box.tree.store.filesystem.readbytes("/same") == b"x"


def test_what_others_leave_where_a_drop_box_has_left_something_is_theirs(box: Serving) -> None:
    """As where files are picked up, and all scanners call theirs the same."""
    storage = box.tree.store.filesystem
    client, other = leaving(box).raw(), leaving(box).raw()
    client.put("/scan", b"first")
    storage.remove("/scan")  # picked up
    other.put("/scan", b"theirs")
    client.put("/removed", b"first")
    assert client.wait(client.remove("/removed")).ok
    client.put("/renamed", b"first")
    assert client.wait(client.rename("/renamed", "/mine")).ok
    for path in ("/removed", "/renamed"):
        storage.writebytes(path, b"theirs")
    for path in ("/scan", "/removed", "/renamed"):
        assert client.wait(client.stat(path)).code == Status.NO_SUCH_FILE
        assert client.wait(client.open(path, W | C | T)).text == f"{path}: exists already"
        assert client.wait(client.posix_rename("/mine", path)).code == Status.FAILURE
        assert client.wait(client.remove(path)).code == Status.PERMISSION_DENIED
        assert storage.readbytes(path) == b"theirs"
    assert client.wait(client.stat("/mine")).attributes.size == 5
    assert set(client.list("/")) == {".", "..", "d", "mine"}


def test_what_is_stored_where_a_drop_box_writes_is_no_more_its_own_than_before(box: Serving) -> None:
    storage, client, other = box.tree.store.filesystem, leaving(box).raw(), box.raw()
    client.put("/mine", b"mine")
    handles = [client.opened(path, W | C | T) for path in ("/same", "/mine")]
    for path in ("/same", "/mine"):
        other.put(path, b"theirs")
    handles.append(client.opened("/same", W | C | T))
    assert client.wait(client.remove("/same")).code == Status.PERMISSION_DENIED
    assert client.wait(client.posix_rename("/same", "/x")).code == Status.PERMISSION_DENIED
    for handle in handles:
        assert client.wait(client.write(handle, 0, b"more")).ok
        assert client.wait(client.close(handle)).text.endswith("exists already")
    for path in ("/same", "/mine"):
        assert client.wait(client.stat(path)).code == Status.NO_SUCH_FILE
        assert storage.readbytes(path) == b"theirs"


def test_what_others_go_on_with_is_not_left_by_a_drop_box_that_changes_nothing(box: Serving) -> None:
    client, other = leaving(box).raw(), box.raw()
    client.put("/mine", b"mine")
    handle = client.opened("/mine", W)
    theirs = other.opened("/mine", W)
    assert other.wait(other.write(theirs, 0, b"theirs")).ok
    assert client.wait(client.setstat("/mine", size=0)).code == Status.PERMISSION_DENIED
    assert client.wait(client.stat("/mine")).attributes.size == 4
    assert other.wait(other.close(theirs)).ok
    client.wait(client.close(handle))
    assert client.wait(client.stat("/mine")).code == Status.NO_SUCH_FILE
    assert client.wait(client.remove("/mine")).code == Status.PERMISSION_DENIED


def test_what_comes_with_its_directory_is_not_left_by_a_drop_box(box: Serving) -> None:
    client, other = leaving(box).raw(), box.raw()
    client.put("/d/scan", b"first")
    assert other.wait(other.mkdir("/new")).ok
    other.put("/new/scan", b"theirs")
    for source, target in (("/d", "/picked up"), ("/new", "/d")):
        assert other.wait(other.rename(source, target)).ok
    assert client.wait(client.stat("/d/scan")).code == Status.NO_SUCH_FILE
    assert client.wait(client.remove("/d/scan")).code == Status.PERMISSION_DENIED


def test_what_is_left_of_others_uploads_is_not_left_by_a_drop_box(box: Serving) -> None:
    client, other = leaving(box).raw(), box.session()
    client.put("/scan", b"first")
    box.tree.store.filesystem.remove("/scan")  # picked up
    theirs = other.raw()
    assert theirs.wait(theirs.write(theirs.opened("/scan", W | C), 0, b"theirs")).ok
    other.cut()
    assert box.raw().list("/")["scan"].size == 5
    assert client.wait(client.stat("/scan")).code == Status.NO_SUCH_FILE
    assert client.wait(client.open("/scan", W)).code == Status.NO_SUCH_FILE
    assert client.wait(client.remove("/scan")).code == Status.PERMISSION_DENIED


def test_a_drop_box_sets_no_time_of_what_it_hides(box: Serving) -> None:
    client = leaving(box).raw()
    before = box.tree.store.filesystem.getinfo("/theirs", ["details"]).modified
    assert client.wait(client.setstat("/theirs", atime=1, mtime=1)).code == Status.NO_SUCH_FILE
    assert box.tree.store.filesystem.getinfo("/theirs", ["details"]).modified == before
    client.put("/mine", b"mine")
    for path in ("/mine", "/d"):
        assert client.wait(client.setstat(path, atime=1, mtime=1)).ok


def test_an_upload_into_a_drop_box_that_was_cut_off_is_sent_again(box: Serving) -> None:
    session = leaving(box)
    client = session.raw()
    handle = client.opened("/scan", W | C | T)
    assert client.wait(client.write(handle, 0, b"x" * 1000)).ok
    session.cut()
    again = leaving(box).raw()
    assert again.wait(again.stat("/scan")).code == Status.NO_SUCH_FILE
    again.put("/scan", b"whole")
    assert box.tree.store.filesystem.readbytes("/scan") == b"whole"


@pytest.mark.parametrize("directory", ["", "inbox"])
@pytest.mark.parametrize("write_back", [False, True], ids=["direct", "write-back"])
def test_a_drop_box_has_no_views(
    emulator: Emulator,
    start_gateway: StartGateway,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
    write_back: bool,
) -> None:
    """`.versions` and `.deleted` have what others left in their listings, by name."""
    with fs.open_fs(emulator.fs_url) as dropbox:
        dropbox.makedir("/inbox")
        for path in ("/theirs", "/inbox/theirs"):
            dropbox.writetext(path, "theirs")
    url = urlsplit(emulator.fs_url)
    monkeypatch.setenv("URL", url._replace(path=f"/{directory}", query=f"{url.query}&views=on").geturl())
    users = [
        UserConfig(name=rights, password_hash=PASSWORD_HASH, url_env="URL", rights=rights, write_back=write_back)
        for rights in ("read-write", "write-only")
    ]
    gateway = start_gateway(users=tuple(users))
    for name, expected in (("read-write", True), ("write-only", False)):
        client = sftp(connect(gateway, name, PASSWORD))
        for view in ("/.versions", "/.versions/theirs", "/.deleted"):
            if expected:
                client.listdir(view)
                assert stat.S_ISDIR(client.stat(view).st_mode or 0)
            else:
                for request in (client.listdir, client.stat):
                    with pytest.raises(FileNotFoundError):
                        request(view)


# Quotas.


def test_a_users_quota_and_drop_box_come_from_the_configuration(
    start_gateway: StartGateway, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "theirs").write_text("theirs")
    url = f"osfs://{tmp_path / 'home'}"
    gateway = start_gateway(
        users=(
            UserConfig(name="few", password_hash=PASSWORD_HASH, url=url, quota_files=2),
            UserConfig(name="box", password_hash=PASSWORD_HASH, url=url, rights="write-only"),
        )
    )
    few, box = (sftp(connect(gateway, name, PASSWORD)) for name in ("few", "box"))
    assert box.listdir("/") == []
    with few.open("/second", "wb") as file:
        file.write(b"x")
    with pytest.raises(OSError, match="your quota is used up: 2 of 2 files"):
        few.open("/third", "wb")
    with pytest.raises(OSError, match="exists already"):
        box.open("/theirs", "wb")


def test_what_could_not_be_stored_is_refused_before_a_byte_is_sent(tmp_path: Path) -> None:
    class LockedFS(AtomicFS):
        def check_writable(self, path: str) -> None:
            raise errors.ResourceLocked(path)

    tree = Tree(LockedFS(), spool_directory=tmp_path)
    for rights in (Rights.READ_WRITE, Rights.WRITE_ONLY):
        with pytest.raises(errors.ResourceLocked):
            tree.view(rights=rights).open("/f", W | C | T, NO_ATTRIBUTES)
    tree.close()
