"""What this filesystem itself changes: seen at once, whole or not at all. Nobody else touches the account here."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator


@pytest.fixture(params=[True, False], ids=["cache", "no cache"])
def account(request: pytest.FixtureRequest, open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    """The account with and without a cache: what is seen must be the same."""
    return open_dropbox(cache=request.param)


def test_changes_are_seen_at_once(account: DropboxFS) -> None:
    assert not account.exists("a.txt")
    assert account.listdir("/") == []
    account.writetext("a.txt", "one")
    assert account.getsize("a.txt") == 3
    assert account.listdir("/") == ["a.txt"]
    account.writetext("a.txt", "three")
    assert account.getsize("a.txt") == 5
    account.makedirs("x/y/z")
    assert account.isdir("x/y")
    assert sorted(account.listdir("/")) == ["a.txt", "x"]
    account.move("a.txt", "x/y/b.txt")
    assert not account.exists("a.txt")
    assert sorted(account.listdir("x/y")) == ["b.txt", "z"]
    assert account.readtext("x/y/b.txt") == "three"
    account.removetree("x")
    assert account.listdir("/") == []
    assert not account.exists("x/y/b.txt")


def test_names_fold_case_and_keep_it(account: DropboxFS, emulator: Emulator) -> None:
    account.makedir("Some Folder")
    account.writetext("some folder/Report.TXT", "one")
    assert account.readtext("/SOME FOLDER/report.txt") == "one"
    account.writetext("Some Folder/REPORT.txt", "two")
    assert account.listdir("some FOLDER") == ["Report.TXT"]
    assert account.getinfo("some folder/report.txt").name == "Report.TXT"
    assert list(account.walk.files("/")) == ["/Some Folder/Report.TXT"]
    assert emulator.control.tree() == {"/Some Folder": None, "/Some Folder/Report.TXT": 3}


@pytest.mark.parametrize("behaviour", ["keep", "conflict", "rename"])
def test_a_rename_to_another_case(account: DropboxFS, emulator: Emulator, behaviour: str) -> None:
    emulator.control.options(case_only_move=behaviour)
    account.writetext("report.txt", "one")
    account.makedirs("folder/below")
    account.move("report.txt", "Report.TXT")
    account.movedir("folder", "Folder", create=True)
    assert sorted(account.listdir("/")) == ["Folder", "Report.TXT"]
    assert account.getinfo("report.txt").name == "Report.TXT"
    assert sorted(emulator.control.tree()) == ["/Folder", "/Folder/below", "/Report.TXT"]


def test_a_rename_to_another_case_with_accents_written_apart(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("\u00e9.txt", "one")
    account.makedir("\u00f6")
    account.move("\u00e9.txt", "E\u0301.TXT")
    account.movedir("o\u0308", "O\u0308", create=True)
    assert sorted(emulator.control.tree()) == ["/\u00c9.TXT", "/\u00d6"]
    emulator.control.reset_counts()
    account.move("\u00c9.TXT", "E\u0301.TXT", overwrite=True)
    account.movedir("\u00d6", "O\u0308", create=True)
    assert emulator.control.calls()["files/move_v2"] == 0


def test_a_rename_to_another_case_that_dropbox_does_not_make_is_told(
    account: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.writetext("report.txt", "one")
    move = account._parts.client.move
    monkeypatch.setattr(
        account._parts.client, "move", lambda source, target, **others: move(source, target.lower(), **others)
    )
    with pytest.raises(fs.errors.OperationFailed, match="another spelling"):
        account.move("report.txt", "Report.TXT")
    assert account.listdir("/") == ["report.txt"]


def test_times_are_read_only(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("a.txt", "one")
    before = emulator.control.metadata("/a.txt")
    moment = datetime(2001, 2, 3, tzinfo=UTC)
    account.settimes("a.txt", moment, moment)
    account.setinfo("a.txt", {"details": {"modified": moment.timestamp()}})
    account.touch("a.txt")
    assert emulator.control.metadata("/a.txt") == before
    assert not account.getinfo("a.txt", ["details"]).is_writeable("details", "modified")
    with pytest.raises(fs.errors.ResourceNotFound):
        account.setinfo("b.txt", {})


def test_a_time_given_before_close_is_stored(account: DropboxFS) -> None:
    moment = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    with account.openbin("a", "w", modified=moment) as file:
        file.write(b"one")
    with account.openbin("b", "w") as file:
        file.write(b"one")
        file.modified = moment  # type: ignore[attr-defined]
    assert account.getinfo("a", ["details"]).modified == moment
    assert account.getinfo("b", ["details"]).modified == moment


def test_nothing_is_visible_before_close(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("old", "old")
    account.writetext("kept", "kept")
    for path, mode in (("new", "w"), ("old", "w"), ("exact", "x"), ("kept", "a"), ("kept", "r+")):
        before = emulator.control.tree()
        file = account.openbin(path, mode)
        file.write(b"x" * 20_000_000)
        file.flush()
        assert emulator.control.tree() == before
        file.close()
        assert emulator.control.tree()["/" + path] == (20_000_004 if mode == "a" else 20_000_000)
        account.writetext("kept", "kept")


def test_an_exception_discards(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("old", "old")
    before = emulator.control.metadata("/old")

    def fail(mode: str, data: Any) -> None:
        with account.open("old", mode) as file:
            file.write(data)
            raise KeyError

    for mode, data in (("wb", b"new"), ("w", "new"), ("ab", b"new"), ("r+", "new"), ("w+b", b"x" * 20_000_000)):
        with pytest.raises(KeyError):
            fail(mode, data)
    aborted = account.openbin("old", "w")
    aborted.write(b"new")
    aborted.abort()  # type: ignore[attr-defined]
    aborted.close()
    forgotten = account.openbin("old", "w")
    forgotten.write(b"new")
    del forgotten
    text = account.open("old", "w")
    text.write("new")
    del text
    gc.collect()
    assert emulator.control.metadata("/old") == before
    assert account.readtext("old") == "old"


def test_forgetting_a_failed_file_is_silent(account: DropboxFS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 prints what closing raises in a finaliser."""
    unraisable: list[object] = []
    forgotten = account.openbin("a", "w")
    forgotten.abort(fs.errors.FilesystemClosed())  # type: ignore[attr-defined]
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    del forgotten
    gc.collect()
    assert unraisable == []


def test_forgetting_files_of_a_closed_filesystem_is_silent(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of a program that closes nothing: in whatever order the interpreter gets rid of them."""
    account = open_dropbox()
    binary, text = account.openbin("a", "w"), account.open("b", "w")
    binary.write(b"half")
    text.write("half")
    account.close()
    unraisable: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    del binary, text
    gc.collect()
    assert unraisable == []
    assert emulator.control.tree() == {}


def test_what_went_wrong_in_a_with_block_is_told_though_the_filesystem_was_closed_in_it(
    open_dropbox: Callable[..., DropboxFS],
) -> None:
    account = open_dropbox()

    def work() -> None:
        with account.openbin("a", "w") as file:
            file.write(b"half")
            account.close()
            raise KeyError

    with pytest.raises(KeyError):
        work()


def test_a_file_open_when_the_filesystem_is_closed_is_discarded(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    account = open_dropbox()
    file = account.openbin("a", "w")
    file.write(b"half")
    account.close()
    account.close()
    with pytest.raises(fs.errors.FilesystemClosed):
        file.close()
    file.close()
    assert emulator.control.tree() == {}
    with pytest.raises(fs.errors.FilesystemClosed):
        account.listdir("/")


def test_closing_twice_commits_once(account: DropboxFS, emulator: Emulator) -> None:
    file = account.openbin("a", "w")
    file.write(b"one")
    file.close()
    emulator.control.delete("/a")
    file.close()
    assert not emulator.control.exists("/a")


def test_identical_content_is_no_new_version(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("a.txt", "one")
    before = emulator.control.metadata("/a.txt")
    account.writetext("a.txt", "one")
    assert emulator.control.metadata("/a.txt") == before
    assert account.getinfo("a.txt", ["dropbox"]).raw["dropbox"]["rev"] == before["rev"]


def test_removedir_wants_an_empty_folder(account: DropboxFS, emulator: Emulator) -> None:
    account.makedirs("a/b")
    with pytest.raises(fs.errors.DirectoryNotEmpty):
        account.removedir("a")
    emulator.control.write("/a/b/unknown to the cache", b"")
    with pytest.raises(fs.errors.DirectoryNotEmpty):
        account.removedir("a/b")
    emulator.control.delete("/a/b/unknown to the cache")
    account.removedir("a/b")
    account.removedir("a")
    assert emulator.control.tree() == {}


def test_remove_is_for_files_and_removedir_for_folders(account: DropboxFS) -> None:
    account.makedir("folder")
    account.writetext("file", "")
    with pytest.raises(fs.errors.FileExpected):
        account.remove("folder")
    with pytest.raises(fs.errors.DirectoryExpected):
        account.removedir("file")
    with pytest.raises(fs.errors.RemoveRootError):
        account.removedir("/")


def test_moving_over_a_file(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("new", "new")
    account.writetext("old", "old")
    with pytest.raises(fs.errors.DestinationExists):
        account.move("new", "old")
    with pytest.raises(fs.errors.DestinationExists):
        account.copy("new", "old")
    account.copy("new", "old", overwrite=True)
    assert account.readtext("old") == "new"
    account.writetext("old", "old again")
    account.move("new", "old", overwrite=True)
    assert account.readtext("old") == "new"
    assert account.listdir("/") == ["old"]
    assert emulator.control.tree() == {"/old": 3}


def test_a_move_that_fails_brings_the_old_file_back(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("new", "new")
    account.writetext("old", "old")
    error = {".tag": "from_write", "from_write": {".tag": "no_write_permission"}}
    emulator.control.fault("files/move_v2", "error", error=error)
    with pytest.raises(fs.errors.PermissionDenied):
        account.move("new", "old", overwrite=True)
    assert emulator.control.tree() == {"/new": 3, "/old": 3}
    assert account.readtext("old") == "old"
    assert account.readtext("new") == "new"


def test_moves_onto_themselves(account: DropboxFS, emulator: Emulator) -> None:
    account.makedirs("folder/below")
    account.writetext("folder/file", "one")
    before = emulator.control.tree()
    account.move("folder/file", "Folder/file", overwrite=True)
    with pytest.raises(fs.errors.FSError):
        account.copy("folder/file", "FOLDER/FILE", overwrite=False)
    account.movedir("folder", "folder")
    for transfer in (account.movedir, account.copydir):
        with pytest.raises(fs.errors.OperationFailed):
            transfer("folder", "folder/below/deeper", create=True)
        with pytest.raises(fs.errors.OperationFailed):
            transfer("folder", "Folder/below")
    assert emulator.control.tree() == before
    assert account.readtext("folder/file") == "one"


def test_a_file_is_no_folder_of_others(account: DropboxFS) -> None:
    account.writetext("file", "")
    with pytest.raises((fs.errors.ResourceNotFound, fs.errors.DirectoryExpected)):
        account.writetext("file/below", "")
    with pytest.raises((fs.errors.ResourceNotFound, fs.errors.DirectoryExpected)):
        account.makedir("file/below")
    with pytest.raises(fs.errors.DirectoryExpected):
        account.makedirs("file/below/it")
    with pytest.raises(fs.errors.ResourceNotFound):
        account.writetext("missing/below", "")
    assert account.listdir("/") == ["file"]


def test_names_that_dropbox_refuses_are_refused_early(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.reset_counts()
    for name in ("back\\slash", "nul\0l", "desktop.ini", "x" * 256, "space "):
        with pytest.raises(fs.errors.InvalidPath):
            account.writetext(name, "")
    assert not [route for route in emulator.control.calls() if "upload" in route]


def test_create_and_touch(account: DropboxFS, emulator: Emulator) -> None:
    account.makedir("folder")
    assert account.create("file")
    assert not account.create("file")
    assert not account.create("folder")
    account.writetext("file", "one")
    account.touch("file")
    assert account.readtext("file") == "one"
    assert account.create("file", wipe=True)
    account.touch("new")
    with pytest.raises(fs.errors.FileExpected):
        account.create("folder", wipe=True)
    assert emulator.control.tree() == {"/file": 0, "/folder": None, "/new": 0}


def test_braces_in_names_are_no_fields(account: DropboxFS) -> None:
    for name in ("{path}", "{", "{0}", "a{b}c"):
        account.writetext(name, "one")
        assert account.readtext(name) == "one"
        with pytest.raises(fs.errors.FileExists) as exists:
            account.openbin(name, "x")
        assert name in str(exists.value)
        with pytest.raises(fs.errors.InvalidPath) as invalid:
            account.exists(name + "\\")
        assert name in str(invalid.value)
        account.makedir("folder" + name)
        with pytest.raises(fs.errors.OperationFailed) as itself:
            account.movedir("folder" + name, f"folder{name}/below", create=True)
        assert name in str(itself.value)


def test_usage_links_and_hashes(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("a.txt", "one")
    usage = account.getmeta("usage")
    assert usage["used"] == 3
    assert usage["total"] > 3  # type: ignore[operator]
    assert account.hash("a.txt", "dropbox") == emulator.control.metadata("/a.txt")["content_hash"]
    assert account.hash("a.txt", "md5") == "f97c5d29941bfb1b2fdab0874906ab82"
    with pytest.raises(fs.errors.UnsupportedHash):
        account.hash("a.txt", "no such thing")
    assert account.geturl("a.txt").startswith("http")
    assert account.geturl("a.txt", purpose="share") == account.geturl("a.txt", purpose="share")
    with pytest.raises(fs.errors.NoURL):
        account.geturl("a.txt", purpose="nonsense")


def test_versions_are_listed_and_restored(account: DropboxFS) -> None:
    account.writetext("a.txt", "one")
    account.writetext("a.txt", "three")
    newest, oldest = account.versions("a.txt")
    assert (newest.size, oldest.size) == (5, 3)
    account.restore("a.txt", oldest.get("dropbox", "rev"))
    assert account.readtext("a.txt") == "one"


def test_nothing_shown_of_the_filesystem_is_secret(account: DropboxFS, emulator: Emulator) -> None:
    account.writetext("a.txt", "one")
    with account.openbin("a.txt") as file:
        shown = [repr(account), str(account), account.desc("a.txt"), account.geturl("a.txt"), repr(file)]
    for secret in (emulator.app_secret, emulator.refresh_token):
        assert not [text for text in shown if secret in text]


def test_a_move_into_someone_elses_shared_folder(account: DropboxFS, emulator: Emulator) -> None:
    """Dropbox asks whether the new owner is meant; whoever moves means it."""
    emulator.control.add_account("bob@example.com", "Bob Stone")
    emulator.control.share_folder_with_account("/Team", "ann@example.com", account="bob@example.com")
    account.writebytes("/mine.txt", b"content")
    account.move("/mine.txt", "/Team/ours.txt")
    assert account.listdir("/Team") == ["ours.txt"]
    assert emulator.control.read("/Team/ours.txt", account="bob@example.com") == b"content"
    assert not account.exists("/mine.txt")
