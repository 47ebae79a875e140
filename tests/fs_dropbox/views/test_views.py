"""Looking back in time, and into shared folders that are not mounted: by methods and by read-only views."""

from __future__ import annotations

import re
from collections.abc import Callable

import fs.errors
import pytest
from fs.wrap import read_only

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.waiting import eventually

BOB = "bob@example.com"
VERSION = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ_[0-9a-f]{9,}\.txt")


@pytest.fixture
def viewed(open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    return open_dropbox(views=True)


@pytest.fixture
def history(emulator: Emulator) -> Emulator:
    """Three versions of a file, a deleted file, a deleted folder."""
    for text in ("one", "two two", "three"):
        emulator.control.write("/a/report.txt", text.encode())
        emulator.control.advance(60)
    emulator.control.write("/a/gone.txt", b"gone 1")
    emulator.control.write("/a/gone.txt", b"gone for good")
    emulator.control.write("/old/deep/x.txt", b"x")
    emulator.control.write("/old/y.txt", b"yy")
    emulator.control.delete("/a/gone.txt")
    emulator.control.delete("/old")
    return emulator


# Methods


def test_versions_are_listed_and_restored(history: Emulator, dropbox_fs: DropboxFS) -> None:
    found = dropbox_fs.versions("/a/report.txt")
    assert [info.size for info in found] == [5, 7, 3]
    assert dropbox_fs.restore("/a/report.txt", str(found[-1].get("dropbox", "rev"))) == 1
    assert dropbox_fs.readtext("/a/report.txt") == "one"
    assert len(dropbox_fs.versions("/a/report.txt")) == 4
    with pytest.raises(fs.errors.FileExists, match="name the revision"):
        dropbox_fs.restore("/a/report.txt")
    with pytest.raises(fs.errors.FileExpected):
        dropbox_fs.versions("/a")
    with pytest.raises(fs.errors.ResourceNotFound):
        dropbox_fs.versions("/a/never.txt")


def test_any_version_is_read_by_its_rev(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    """Those too that are older than the hundred that are listed; the latest costs one call."""
    for number in range(102):
        emulator.control.write("/log", str(number).encode())
    latest = dropbox_fs.versions("/log")
    emulator.control.reset_counts()
    assert len(latest) == 100
    assert dropbox_fs.openbin("/log", version=latest[0].get("dropbox", "rev")).read() == b"101"
    assert emulator.control.calls()["files/list_revisions"] == 1
    first = [entry.rev for entry in dropbox_fs._parts.client.revisions("/log")][-1]
    assert dropbox_fs.openbin("/log", version=first).read() == b"0"
    emulator.control.write("/other", b"other")
    with pytest.raises(fs.errors.ResourceNotFound, match="no revision"):
        dropbox_fs.openbin("/log", version=dropbox_fs.getinfo("/other", ["dropbox"]).get("dropbox", "rev"))


def test_deleted_files_are_listed_and_restored(history: Emulator, dropbox_fs: DropboxFS) -> None:
    assert not dropbox_fs.exists("/a/gone.txt")
    (gone,) = dropbox_fs.deleted("/a")
    assert (gone.name, gone.size, gone.is_dir) == ("gone.txt", len(b"gone for good"), False)
    assert [(info.name, info.is_dir) for info in dropbox_fs.deleted("/")] == [("old", True)]
    assert sorted((info.name, info.is_dir) for info in dropbox_fs.deleted("/old")) == [("deep", True), ("y.txt", False)]
    assert dropbox_fs.restore("/a/gone.txt") == 1
    assert dropbox_fs.readtext("/a/gone.txt") == "gone for good"
    assert dropbox_fs.deleted("/a") == []
    for nothing in ("/never", "/a/never.txt"):
        with pytest.raises(fs.errors.ResourceNotFound):
            dropbox_fs.restore(nothing)
    with pytest.raises(fs.errors.ResourceNotFound):
        dropbox_fs.deleted("/never")


def test_what_a_rename_of_case_passes_through_is_not_what_was_deleted(history: Emulator, dropbox_fs: DropboxFS) -> None:
    dropbox_fs.move("/a/report.txt", "/a/Report.txt")
    dropbox_fs.movedir("/a", "/A", create=True)
    assert [info.name for info in dropbox_fs.deleted("/")] == ["old"]
    assert dropbox_fs.restore("/A") == 1
    assert sorted(dropbox_fs.listdir("/A")) == ["Report.txt", "gone.txt"]


def test_a_deleted_folder_comes_back_whole(history: Emulator, dropbox_fs: DropboxFS) -> None:
    assert not dropbox_fs.exists("/old")
    assert dropbox_fs.restore("/old") == 2
    assert sorted(dropbox_fs.walk.files("/old")) == ["/old/deep/x.txt", "/old/y.txt"]
    assert dropbox_fs.readtext("/old/deep/x.txt") == "x"


# Views


def test_views_are_off_unless_asked_for(history: Emulator, dropbox_fs: DropboxFS) -> None:
    for view in ("/.versions", "/.deleted", "/.shared", "/a/.versions"):
        assert not dropbox_fs.exists(view)
    dropbox_fs.makedir("/.versions")  # then it is a name like any other
    assert dropbox_fs.listdir("/.versions") == []


def test_views_are_in_no_listing_and_cost_nothing(history: Emulator, viewed: DropboxFS) -> None:
    before = history.control.calls()
    assert sorted(viewed.listdir("/")) == ["a"]
    assert sorted(viewed.walk.dirs("/")) == ["/a"]
    after = history.control.calls() - before
    assert not [route for route in after if "revisions" in route or "sharing" in route]


def test_versions_as_files(history: Emulator, viewed: DropboxFS) -> None:
    assert viewed.listdir("/.versions") == ["a"]
    assert viewed.listdir("/.versions/a") == ["report.txt"]
    names = viewed.listdir("/.versions/a/report.txt")
    assert all(VERSION.fullmatch(name) for name in names)
    assert [viewed.readtext(f"/.versions/a/report.txt/{name}") for name in sorted(names)] == ["one", "two two", "three"]
    infos = list(viewed.scandir("/.versions/A/Report.txt", ["details", "dropbox"]))
    assert {info.name: info.size for info in infos} == dict(zip(sorted(names), (3, 7, 5), strict=True))
    assert all(str(info.get("dropbox", "rev")) in info.name for info in infos)
    assert viewed.isdir("/.versions/a/report.txt")
    assert viewed.isfile(f"/.versions/a/report.txt/{names[0]}")
    assert viewed.geturl(f"/.versions/a/report.txt/{names[0]}").startswith("https://")
    assert [viewed.hasurl(f"/.versions/a/report.txt/{names[0]}", purpose) for purpose in ("download", "share")] == [
        True,
        False,
    ]


def test_versions_of_deleted_files_are_there_by_name(history: Emulator, viewed: DropboxFS) -> None:
    names = sorted(viewed.listdir("/.versions/a/gone.txt"))
    assert [viewed.readtext(f"/.versions/a/gone.txt/{name}") for name in names] == ["gone 1", "gone for good"]


def test_deleted_files_as_files(history: Emulator, viewed: DropboxFS) -> None:
    assert sorted(viewed.listdir("/.deleted")) == ["a", "old"]
    assert viewed.listdir("/.deleted/a") == ["gone.txt"]
    assert viewed.readtext("/.deleted/a/gone.txt") == "gone for good"
    assert viewed.getsize("/.deleted/a/gone.txt") == len("gone for good")
    assert not viewed.exists("/.deleted/a/report.txt")  # it is there still
    assert sorted(viewed.walk.files("/.deleted")) == [
        "/.deleted/a/gone.txt",
        "/.deleted/old/deep/x.txt",
        "/.deleted/old/y.txt",
    ]
    assert viewed.readtext("/.deleted/old/deep/x.txt") == "x"


def test_a_deleted_tree_is_listed_once_and_each_deleted_file_looked_up_once(
    emulator: Emulator, viewed: DropboxFS
) -> None:
    for number in range(20):
        emulator.control.write(f"/old/{number % 5}/{number % 4}/{number}.txt", b"x")
    emulator.control.delete("/old")
    assert not viewed.exists("/old")
    # The change feed begins with the first use. Going live amid the walk it would have what is known asked for again.
    eventually(lambda: viewed.feed_is_live)
    emulator.control.reset_counts()
    assert len(list(viewed.walk.files("/.deleted"))) == 20
    calls = emulator.control.calls()
    # The root as it is, its deleted names, what is below them: without that each of the 26 folders would be listed.
    assert calls["files/list_folder"] <= 4, calls
    assert calls["files/list_revisions"] <= 22, calls


def test_every_folder_has_its_views_and_none_leads_out_of_it(history: Emulator, viewed: DropboxFS) -> None:
    below = viewed.opendir("/a")
    assert below.listdir("/") == ["report.txt"]
    assert len(below.listdir("/.versions/report.txt")) == 3
    assert below.readtext("/.deleted/gone.txt") == "gone for good"
    assert viewed.listdir("/a/.deleted") == ["gone.txt"]
    assert not below.exists("/.shared")
    assert [info.size for info in below.versions("/report.txt")] == [5, 7, 3]
    assert [info.name for info in below.deleted()] == ["gone.txt"]
    with pytest.raises(fs.errors.ResourceNotFound) as caught:
        below.restore("/never.txt")
    assert caught.value.path == "/never.txt"
    with pytest.raises(fs.errors.ResourceReadOnly):
        below.check_writable("/.deleted/gone.txt")
    assert below.restore("/gone.txt") == 1
    viewed.remove("/a/gone.txt")
    assert not viewed.exists("/nowhere/.versions")
    assert not viewed.exists("/a/report.txt/.versions")


def test_what_is_not_there_is_said_so(history: Emulator, viewed: DropboxFS) -> None:
    version = f"/.versions/a/report.txt/{viewed.listdir('/.versions/a/report.txt')[0]}"
    cases = [
        ("/.versions/never", fs.errors.ResourceNotFound),
        ("/.versions/a/never.txt", fs.errors.ResourceNotFound),
        ("/.deleted/never", fs.errors.ResourceNotFound),
        ("/.deleted/a/report.txt", fs.errors.ResourceNotFound),
        ("/.deleted/a/gone.txt", fs.errors.DirectoryExpected),
        (version, fs.errors.DirectoryExpected),
    ]
    for path, kind in cases:
        with pytest.raises(kind) as caught:
            viewed.listdir(path)
        assert caught.value.path == path
    with pytest.raises(fs.errors.ResourceNotFound):
        viewed.openbin("/.versions/a/report.txt/2026-01-01T00-00-00Z_0123456789.txt")
    with pytest.raises(fs.errors.FileExpected):
        viewed.openbin("/.versions/a/report.txt")


@pytest.mark.parametrize(
    "path", ["/.versions/a/report.txt", "/.deleted/a/gone.txt", "/.deleted", "/a/.VERSIONS/new", "/.shared/x"]
)
def test_nothing_in_a_view_can_be_changed(history: Emulator, viewed: DropboxFS, path: str) -> None:
    before = history.control.tree()
    viewed.writetext("/a/new.txt", "new")
    changes: list[Callable[[], object]] = [
        lambda: viewed.writetext(path, "x"),
        lambda: viewed.appendtext(path, "x"),
        lambda: viewed.remove(path),
        lambda: viewed.removedir(path),
        lambda: viewed.removetree(path),
        lambda: viewed.makedir(path),
        lambda: viewed.makedirs(path + "/x"),
        lambda: viewed.move(path, "/a/moved.txt"),
        lambda: viewed.move("/a/new.txt", path),
        lambda: viewed.copy("/a/new.txt", path),
        lambda: viewed.movedir("/a", path, create=True),
        lambda: viewed.copydir("/a", path, create=True),
        lambda: viewed.restore(path),
    ]
    for change in changes:
        with pytest.raises(fs.errors.ResourceReadOnly, match="nothing can be changed in"):
            change()
    viewed.remove("/a/new.txt")
    assert history.control.tree() == before


def test_what_a_view_shows_can_be_copied_out(history: Emulator, viewed: DropboxFS) -> None:
    first = sorted(viewed.listdir("/.versions/a/report.txt"))[0]
    viewed.copy(f"/.versions/a/report.txt/{first}", "/a/first.txt")
    assert viewed.readtext("/a/first.txt") == "one"
    viewed.copy("/.deleted/a/gone.txt", "/a/first.txt", overwrite=True)
    assert viewed.readtext("/a/first.txt") == "gone for good"
    assert read_only(viewed).readtext("/.deleted/a/gone.txt") == "gone for good"


def test_versions_of_a_file_that_was_deleted_again_are_seen_at_once(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    viewed = open_dropbox(views=True, change_feed=False)
    for count in (1, 2):
        viewed.writetext("/file", str(count))
        viewed.remove("/file")
        assert len(viewed.listdir("/.versions/file")) == count
    emulator.control.reset_counts()
    assert len(viewed.listdir("/.versions/file")) == 2
    assert "files/list_revisions" not in emulator.control.calls()


def test_new_versions_and_deletions_are_seen_at_once(history: Emulator, viewed: DropboxFS) -> None:
    assert len(viewed.listdir("/.versions/a/report.txt")) == 3
    viewed.writetext("/a/report.txt", "four")
    assert len(viewed.listdir("/.versions/a/report.txt")) == 4
    assert viewed.listdir("/.deleted/a") == ["gone.txt"]
    viewed.remove("/a/report.txt")
    assert sorted(viewed.listdir("/.deleted/a")) == ["gone.txt", "report.txt"]
    assert viewed.readtext("/.deleted/a/report.txt") == "four"
    viewed.restore("/a/report.txt")
    assert viewed.listdir("/.deleted/a") == ["gone.txt"]
    viewed.writetext("/a/report.txt", "five")
    viewed.remove("/a/report.txt")
    assert viewed.readtext("/.deleted/a/report.txt") == "five"
    viewed.writetext("/a/report.txt", "six")
    viewed.remove("/a/report.txt")
    assert viewed.readtext("/.deleted/a/report.txt") == "six"


def test_documents_in_views(emulator: Emulator, viewed: DropboxFS) -> None:
    emulator.control.make_paper("/Notes.paper", "# Notes")
    (name,) = viewed.listdir("/.versions/Notes.paper")
    assert name.endswith(".md")
    path = f"/.versions/Notes.paper/{name}"
    assert viewed.getsize(path) == len("# Notes")
    assert viewed.readtext(path) == "# Notes"


def test_deleted_documents_are_read_by_the_name_that_is_shown(
    emulator: Emulator, viewed: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator forgets of deleted files that they were documents; the service need not."""
    emulator.control.make_paper("/Notes.paper", "# Notes")
    document = viewed._parts.client.get_metadata("/Notes.paper")
    viewed.remove("/Notes.paper")
    listed = viewed._parts.client.list_revisions
    monkeypatch.setattr(
        viewed._parts.client,
        "list_revisions",
        lambda path, **options: [document] if path == "/Notes.paper" else listed(path, **options),
    )
    monkeypatch.setattr(viewed._shown._documents, "_export", lambda *_: b"# Notes")
    assert viewed.listdir("/.deleted") == ["Notes.paper.md"]
    assert viewed.readtext("/.deleted/Notes.paper.md") == "# Notes"
    assert not viewed.exists("/.deleted/Other.paper.md")


# Shared folders


def test_shared_folders_that_are_not_mounted(emulator: Emulator, viewed: DropboxFS) -> None:
    control = emulator.control
    control.add_account(BOB)
    control.write("/Plans/q1/plan.txt", b"plan", account=BOB)
    control.share_folder_with_account("/Plans", "ann@example.com", mounted=False, account=BOB)
    control.share_folder_with_account("/Mounted", "ann@example.com", account=BOB)
    assert viewed.listdir("/") == ["Mounted"]
    assert viewed.listdir("/.shared") == ["Plans"]
    assert viewed.getinfo("/.shared/plans").name == "plans"
    assert list(viewed.walk.files("/.shared")) == ["/.shared/Plans/q1/plan.txt"]
    path = "/.shared/plans/Q1/plan.txt"
    info = viewed.getinfo(path, ["details", "dropbox"])
    assert (info.name, info.size) == ("plan.txt", 4)
    assert viewed.readtext(path) == "plan"
    viewed.copy(path, "/own.txt")
    assert viewed.readtext("/own.txt") == "plan"
    with pytest.raises(fs.errors.ResourceReadOnly):
        viewed.writetext(path, "changed")
    for missing in ("/.shared/Other", "/.shared/Other/x", "/.shared/Plans/none"):
        assert not viewed.exists(missing)
        with pytest.raises(fs.errors.ResourceNotFound) as caught:
            viewed.listdir(missing)
        assert caught.value.path == missing
    assert control.tree(account=BOB)["/Plans/q1/plan.txt"] == 4


def test_readers_in_shared_folders_share_the_memory_of_all(emulator: Emulator, viewed: DropboxFS) -> None:
    emulator.control.add_account(BOB)
    emulator.control.write("/Plans/plan.txt", bytes(1000), account=BOB)
    emulator.control.share_folder_with_account("/Plans", "ann@example.com", mounted=False, account=BOB)
    emulator.control.write("/own.txt", bytes(1000))
    with viewed.openbin("/own.txt") as own, viewed.openbin("/.shared/Plans/plan.txt") as shared:
        budget = viewed._parts.files._budget
        alone = budget.share_blocks
        assert own.read() == shared.read() == bytes(1000)
        assert budget.share_blocks == alone // 2


def test_shared_folders_of_one_name_are_told_apart(emulator: Emulator, viewed: DropboxFS) -> None:
    ids = []
    for email in (BOB, "eve@example.com"):
        emulator.control.add_account(email)
        emulator.control.write("/Plans/x.txt", email.encode(), account=email)
        share = emulator.control.share_folder_with_account
        ids.append(share("/Plans", "ann@example.com", mounted=False, account=email))
    assert sorted(viewed.listdir("/.shared")) == sorted(f"Plans ({each})" for each in ids)
    assert viewed.readtext(f"/.shared/Plans ({ids[0]})/x.txt") == BOB


def test_an_app_with_an_app_folder_is_told_that_it_may_not(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    emulator.control.write("/outside.txt", b"1")
    emulator.control.set_app_folder()
    viewed = open_dropbox(views=True)
    viewed.writetext("/in.txt", "one")
    viewed.writetext("/in.txt", "two")
    viewed.remove("/in.txt")
    assert viewed.listdir("/") == []
    assert viewed.listdir("/.deleted") == ["in.txt"]
    assert len(viewed.listdir("/.versions/in.txt")) == 2
    with pytest.raises(fs.errors.PermissionDenied, match="one with an app folder may not"):
        viewed.listdir("/.shared")
