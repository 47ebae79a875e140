"""Locked files, symbolic links, restricted content, links for others; and every name that Dropbox takes."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from typing import Any

import fs.errors
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fs_dropbox import DropboxFS, paths
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import ApiError
from tests.fs_dropbox.accounts import open_account

BOB = "bob@example.com"


@pytest.fixture
def locked(emulator: Emulator) -> Emulator:
    """A file that Bob has locked, in a folder that he shares."""
    emulator.control.add_account(BOB, "Bob")
    emulator.control.share_folder_with_account("/Shared", BOB)
    emulator.control.write("/Shared/a.txt", b"1")
    emulator.control.lock("/Shared/a.txt", by=BOB)
    return emulator


# Locks


def test_a_locked_file_is_refused_before_a_byte_is_sent(locked: Emulator, dropbox_fs: DropboxFS) -> None:
    uploads = locked.control.bytes_in()
    for mode in ("wb", "ab", "r+b"):
        with pytest.raises(
            fs.errors.ResourceLocked, match=r"locked by Bob Example since \d{4}-\d\d-\d\d \d\d:\d\d UTC"
        ):
            dropbox_fs.openbin("/Shared/a.txt", mode)
    assert locked.control.bytes_in()["files/upload"] == uploads["files/upload"]
    assert dropbox_fs.readtext("/Shared/a.txt") == "1"
    lock = dropbox_fs.getinfo("/Shared/a.txt", ["dropbox"]).get("dropbox", "lock")
    assert (lock["is_holder"], lock["holder_name"]) == (False, "Bob Example")


@pytest.mark.parametrize("tag", ["access_restricted", "no_write_permission"])
def test_whatever_dropbox_answers_the_holder_is_named(locked: Emulator, dropbox_fs: DropboxFS, tag: str) -> None:
    locked.control.options(locked_write=tag)
    dropbox_fs.writetext("/other.txt", "2")
    changes: list[Callable[[], object]] = [
        lambda: dropbox_fs.remove("/Shared/a.txt"),
        lambda: dropbox_fs.move("/Shared/a.txt", "/moved.txt"),
        lambda: dropbox_fs.copy("/other.txt", "/Shared/a.txt", overwrite=True),
    ]
    for change in changes:
        with pytest.raises(fs.errors.ResourceLocked, match="locked by Bob Example"):
            change()
    assert locked.control.read("/Shared/a.txt") == b"1"


def test_a_lock_that_came_while_writing_is_told_by_close(locked: Emulator, dropbox_fs: DropboxFS) -> None:
    locked.control.unlock("/Shared/a.txt")
    file = dropbox_fs.openbin("/Shared/a.txt", "wb")
    file.write(b"2")
    locked.control.lock("/Shared/a.txt", by=BOB)
    with pytest.raises(fs.errors.ResourceLocked, match="locked by Bob Example"):
        file.close()
    assert locked.control.read("/Shared/a.txt") == b"1"


def test_the_holder_writes_and_a_lock_that_ended_is_forgotten(
    locked: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    dropbox_fs = open_dropbox(change_feed=False)
    assert dropbox_fs.getinfo("/Shared/a.txt", ["dropbox"]).get("dropbox", "lock") is not None
    locked.control.unlock("/Shared/a.txt")
    dropbox_fs.writetext("/Shared/a.txt", "2")
    locked.control.lock("/Shared/a.txt", by="ann@example.com")
    dropbox_fs.writetext("/Shared/a.txt", "3")
    assert locked.control.read("/Shared/a.txt") == b"3"


# Symbolic links and restricted content


def test_symbolic_links_are_shown_and_not_followed(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    emulator.control.make_symlink("/f/link", "../../etc/passwd")
    info = dropbox_fs.getinfo("/f/link", ["details", "link", "dropbox"])
    assert info.is_link
    assert info.target == "../../etc/passwd"
    assert info.size == 0
    assert info.get("dropbox", "symlink_target") == "../../etc/passwd"
    assert dropbox_fs.islink("/f/link")
    assert not dropbox_fs.isdir("/f/link")
    with pytest.raises(fs.errors.Unsupported, match=r"a symbolic link to '../../etc/passwd', which is not followed"):
        dropbox_fs.readbytes("/f/link")
    assert list(dropbox_fs.walk.files("/")) == ["/f/link"]
    dropbox_fs.writetext("/f/a.txt", "1")
    assert not dropbox_fs.islink("/f/a.txt")
    assert dropbox_fs.getinfo("/f/a.txt", ["link"]).target is None
    dropbox_fs.remove("/f/link")


def test_restricted_content_is_listed_and_says_why(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    emulator.control.write("/song.mp3", b"la")
    emulator.control.restrict("/song.mp3")
    assert dropbox_fs.getsize("/song.mp3") == 2
    with pytest.raises(fs.errors.PermissionDenied, match="legal reasons"):
        dropbox_fs.readbytes("/song.mp3")


# Links for others


def test_links(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    dropbox_fs.makedir("/d")
    dropbox_fs.writetext("/d/a.txt", "1")
    share = dropbox_fs.geturl("/d/a.txt", purpose="share")
    assert dropbox_fs.geturl("/D/A.txt", purpose="share") == share
    assert dropbox_fs.geturl("/d", purpose="share") != share
    assert dropbox_fs.geturl("/d/a.txt") != share
    assert dropbox_fs.hasurl("/d", "share")
    assert not dropbox_fs.hasurl("/d", "download")
    with pytest.raises(fs.errors.FileExpected):
        dropbox_fs.geturl("/d")
    with pytest.raises(fs.errors.ResourceNotFound):
        dropbox_fs.geturl("/none", "share")
    with pytest.raises(fs.errors.NoURL):
        dropbox_fs.geturl("/d", "fax")


def test_links_that_cannot_be_made_say_what_is_missing(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    emulator.control.write("/a.txt", b"1")
    reader = emulator.control.sign_in(scopes=["account_info.read", "files.metadata.read", "files.content.read"])
    reader.pop("access_token")
    with pytest.raises(fs.errors.PermissionDenied, match=r"not authorized to make shared links: .* sharing.write"):
        open_dropbox(**reader).geturl("/a.txt", "share")
    emulator.control.set_account(email_verified=False)
    for purpose in ("share", "download"):
        with pytest.raises(fs.errors.PermissionDenied, match="has to be verified first"):
            open_dropbox().geturl("/a.txt", purpose)


# What is known of a filesystem and its files


def test_getmeta_tells_whose_account_it_is_and_how_it_is_shown(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    dropbox_fs = open_dropbox(views=True, root="home")
    meta = dropbox_fs.getmeta("dropbox")
    assert meta["email"] == "ann@example.com"
    assert meta["root_namespace_id"] == emulator.control.account()["root_info"]["root_namespace_id"]
    assert {name: meta[name] for name in ("root", "member", "admin", "documents", "views")} == {
        "root": "home",
        "member": None,
        "admin": None,
        "documents": "export",
        "views": True,
    }
    assert not any("token" in name or "secret" in name for name in meta)
    standard = {"case_insensitive", "invalid_path_chars", "max_path_length", "max_sys_path_length", "network"}
    standard |= {"read_only", "supports_mtime", "supports_rename", "thread_safe", "unicode_paths", "virtual"}
    assert standard <= set(dropbox_fs.getmeta())
    assert dropbox_fs.getmeta("account") == {"id": meta["account_id"]}
    assert dropbox_fs.opendir("/").getmeta("account") == {"id": meta["account_id"]}
    assert dropbox_fs.getmeta("nonsense") == {}


def test_the_dropbox_namespace_is_complete(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    namespace = emulator.control.share_folder("/Shared")
    emulator.control.write("/Shared/a.txt", b"1")
    of_file: Any = dropbox_fs.getinfo("/Shared/a.txt", ["dropbox"]).raw["dropbox"]
    assert set(of_file) == {
        *("id", "rev", "path_display", "content_hash", "client_modified", "server_modified"),
        *("is_downloadable", "symlink_target", "sharing", "lock", "export"),
    }
    of_folder: Any = dropbox_fs.getinfo("/Shared", ["dropbox"]).raw["dropbox"]
    assert set(of_folder) == {"id", "path_display", "sharing"}
    assert of_folder["sharing"]["shared_folder_id"] == of_file["sharing"]["parent_shared_folder_id"] == namespace


# Names

EDGES = st.sampled_from(
    [
        " ",
        ".",
        "\x7f",
        "\\",
        "\0",
        "\n",
        "\r",
        "\t",
        "\x01",
        "é",
        "e\u0301",
        "Σ",
        "ß",
        "İ",
        "Ꙋ",
        "ꙋ",
        "Ა",
        "☺",
        "😀",
        "\ud800",
    ]
)
NAMES = st.one_of(
    st.lists(st.one_of(st.sampled_from(string.printable.replace("/", "")), EDGES), min_size=1, max_size=12).map(
        "".join
    ),
    st.text(st.characters(exclude_characters="/"), min_size=1, max_size=6),
    st.sampled_from(
        ["desktop.ini", "Thumbs.DB", ".ds_store", "icon\r", ".dropbox", ".Dropbox.Attr", "x" * 255, "x" * 256]
    ),
    st.sampled_from(["☺" * 255, "☺" * 256, "😀" * 127, "😀" * 128, "~$a.doc", "con", 'a<>:"|?*', " a", "a.", "..."]),
)


@pytest.fixture(scope="module")
def shared_emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture(scope="module")
def account(shared_emulator: Emulator) -> Iterator[DropboxFS]:
    with open_account(
        shared_emulator,
        change_feed=False,
    ) as opened:
        yield opened


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
@example("Ꙋ")
@example("İstanbul")
def test_what_dropbox_takes_goes_round_and_what_it_refuses_is_refused_early(
    shared_emulator: Emulator, account: DropboxFS, name: str
) -> None:
    """The emulator has the rules of the API's facts, and is asked without the rules of the filesystem."""
    if name in (".", ".."):
        return  # no names to PyFilesystem: they lead elsewhere
    control = shared_emulator.control
    try:
        account._parts.client.create_folder(f"/{name}")
        accepted = True
    except (ApiError, UnicodeEncodeError):
        accepted = False
    before = control.calls()
    if not accepted:
        with pytest.raises(fs.errors.InvalidPath) as caught:
            account.writebytes(f"/{name}", b"x")
        assert caught.value.reason  # type: ignore[attr-defined]
        assert control.calls() == before
        return
    account._parts.client.delete(f"/{name}")
    account._parts.cache.clear()
    account.listdir("/")  # from here on absence is known
    account.writebytes(f"/{name}", b"x")
    assert account.isfile(f"/{name}")
    assert [paths.key(each) for each in account.listdir("/")] == [paths.key(name)]
    account._parts.cache.clear()
    (shown,) = account.listdir("/")
    assert account.readbytes(f"/{shown}") == b"x"
    assert account.isfile(f"/{name}")
    account.remove(f"/{name}")
    assert control.tree() == {}
