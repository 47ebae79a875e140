"""How an outcome is found out: what counts as done, what as not done, and what as neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from fs_dropbox.api import commits
from fs_dropbox.api.commits import Commit, Update
from fs_dropbox.api.results import Page
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry, SupersededEntry
from fs_dropbox.errors import ApiError

DATA = b"what was sent"
HASH = ContentHash(DATA).hexdigest()
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_file(rev: str, data: bytes = DATA, *, path: str = "/a", made_at: datetime = WHEN) -> FileEntry:
    digest = ContentHash(data).hexdigest()
    return FileEntry(path[1:], path, path, f"id:{path}", rev, len(data), made_at, made_at, digest)


def refusal(*tag: str) -> ApiError:
    return ApiError("files/get_metadata", tag)


class Account:
    """Answers what it was told to: what is there, the revisions newest first, or an error for either."""

    def __init__(
        self, *entries: FileEntry | FolderEntry, revisions: list[FileEntry] | None = None, error: ApiError | None = None
    ) -> None:
        self.entries = {entry.path_lower: entry for entry in entries}
        self.revisions = revisions or []
        self.error = error

    def get_metadata(self, path: str) -> FileEntry | FolderEntry:
        if self.error is not None:
            raise self.error
        if path not in self.entries:
            raise refusal("path", "not_found")
        return self.entries[path]

    def list_revisions(self, path: str, *, limit: int = 1) -> list[FileEntry]:
        if self.error is not None:
            raise self.error
        return self.revisions

    def pages(self, path: str, *, recursive: bool = False) -> Iterator[Page]:
        below = [entry for key, entry in self.entries.items() if key.startswith(path)]
        yield Page(list(below), "cursor", False)


OVERWRITE = Commit("/a", "overwrite")
UPDATE = Commit("/a", Update("1"), WHEN)
CREATION = Commit("/a", "add", WHEN, strict_conflict=True)


def settle(account: Account, commit: Commit) -> FileEntry | None:
    return commits.settle_commit(account, commit, len(DATA), HASH)


def test_only_an_absence_that_dropbox_tells_is_one() -> None:
    """Or a call that is not to be made twice would be."""
    assert commits.find(Account(), "/a") is None
    for error in (refusal("path", "locked"), refusal("internal_error"), refusal("expired_access_token")):
        with pytest.raises(ApiError) as caught:
            commits.find(Account(error=error), "/a")
        assert caught.value is error
        with pytest.raises(ApiError):
            commits.find_superseded(Account(error=error), UPDATE, len(DATA), HASH)


def test_an_overwrite_is_done_where_its_content_is_there() -> None:
    assert settle(Account(a_file("2")), OVERWRITE) == a_file("2")
    assert settle(Account(a_file("2", b"WHAT WAS SENT")), OVERWRITE) is None  # of the same size
    assert settle(Account(a_file("2", DATA[:-1])), OVERWRITE) is None
    assert settle(Account(), OVERWRITE) is None
    assert settle(Account(FolderEntry("a", "/a", "/a", "id:1")), OVERWRITE) is None


@pytest.mark.parametrize("commit", [UPDATE, CREATION], ids=["update", "creation"])
def test_an_exact_commit_is_known_by_its_time(commit: Commit) -> None:
    assert settle(Account(a_file("2")), commit) == a_file("2")
    assert settle(Account(a_file("2", made_at=WHEN + timedelta(seconds=1))), commit) is None
    in_another_zone = replace(commit, client_modified=WHEN.replace(microsecond=7).astimezone())
    assert settle(Account(a_file("2")), in_another_zone) == a_file("2")


def test_an_update_has_not_made_the_version_that_it_started_from() -> None:
    assert settle(Account(a_file("1")), UPDATE) is None
    assert commits.unchanged(Account(a_file("1")), UPDATE, len(DATA), HASH) == a_file("1")
    assert commits.unchanged(Account(a_file("1", b"WHAT WAS SENT")), UPDATE, len(DATA), HASH) is None
    assert commits.unchanged(Account(a_file("2")), UPDATE, len(DATA), HASH) is None
    assert commits.unchanged(Account(a_file("1")), CREATION, len(DATA), HASH) is None


def test_what_has_been_replaced_since_is_found_among_the_revisions() -> None:
    theirs = a_file("3", b"theirs")
    account = Account(theirs, revisions=[theirs, a_file("2"), a_file("1", b"before")])
    for commit in (UPDATE, CREATION):
        found = settle(account, commit)
        assert isinstance(found, SupersededEntry)
        assert found.rev == "2"
    assert settle(account, OVERWRITE) is None  # which may come again, and loses no version
    elsewhere = Account(theirs, revisions=[theirs, a_file("2"), a_file("other", b""), a_file("1", b"before")])
    assert settle(elsewhere, UPDATE) is None  # not right upon its base: another's


def test_only_a_conflict_with_a_file_is_a_lost_update() -> None:
    conflict = ("path", "conflict", "file")
    assert UPDATE.blame(refusal(*conflict)).lost_update
    assert not OVERWRITE.blame(refusal(*conflict)).lost_update
    assert not CREATION.blame(refusal(*conflict)).lost_update
    for tag in (("path", "insufficient_space"), ("path", "conflict", "folder"), ("too_many_write_operations",)):
        error = UPDATE.blame(refusal(*tag))
        assert not error.lost_update
        assert error.path == "/a"


def test_a_copy_is_done_where_the_target_holds_the_same() -> None:
    copied, other = a_file("9", path="/b"), a_file("9", b"WHAT WAS SENT", path="/b")
    assert commits.settle_copy(Account(a_file("1"), copied), "/a", "/b") == copied
    assert commits.settle_copy(Account(a_file("1"), other), "/a", "/b") is None
    assert commits.settle_copy(Account(a_file("1")), "/a", "/b") is None
    assert commits.settle_copy(Account(copied), "/a", "/b") is None  # nothing to compare with
    source, target = FolderEntry("a", "/a", "/a", "id:1"), FolderEntry("b", "/b", "/b", "id:2")
    inside = [a_file("1", path="/a/x"), a_file("2", path="/b/x")]
    assert commits.settle_copy(Account(source, target, *inside), "/a", "/b") == target
    assert commits.settle_copy(Account(source, target, inside[0]), "/a", "/b") is None
    changed = a_file("3", b"another", path="/b/x")
    assert commits.settle_copy(Account(source, target, inside[0], changed), "/a", "/b") is None


def test_a_removal_and_a_move_go_by_the_id() -> None:
    there = a_file("1")
    assert commits.settle_delete(Account(there), "/a", there.id) is None
    assert commits.settle_delete(Account(there), "/a", "id:gone") is not None
    assert commits.settle_delete(Account(), "/a", there.id) is not None
    assert commits.settle_delete(Account(there), "/a", None) is None
    assert commits.settle_move(Account(there), "/b", "/a", there.id) == there
    assert commits.settle_move(Account(there), "/b", "/a", "id:b") is None
    assert commits.settle_move(Account(), "/b", "/a", "id:b") is None
    assert commits.settle_move(Account(there), "/b", "/a", None) == there
    assert commits.settle_move(Account(there, a_file("1", path="/b")), "/b", "/a", None) is None


class Busy(Account):
    """Tells on a second page of each listing what has been removed since the first."""

    def __init__(self, *entries: FileEntry | FolderEntry, removed: list[str]) -> None:
        super().__init__(*entries)
        self.removed = removed

    def pages(self, path: str, *, recursive: bool = False) -> Iterator[Page]:
        yield from super().pages(path, recursive=recursive)
        yield Page([DeletedEntry("", path + name, path + name) for name in self.removed], "", False)


def test_what_is_removed_while_a_tree_is_listed_is_not_in_it() -> None:
    folder = FolderEntry("a", "/a", "/a", "id:/a")
    inside = FolderEntry("b", "/a/b", "/a/b", "id:/a/b"), a_file("1", path="/a/b/c"), a_file("2", path="/a/b2")
    tree = {"/b": None, "/b/c": HASH, "/b2": HASH}
    assert commits.tree(Account(folder, *inside), "/a") == tree
    assert commits.tree(Busy(folder, *inside, removed=["/b/c", "/d"]), "/a") == {"/b": None, "/b2": HASH}
    assert commits.tree(Busy(folder, *inside, removed=["/b"]), "/a") == {"/b2": HASH}


@pytest.mark.parametrize(
    ("moment", "hours", "told"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 999), 2, "2026-01-02T01:04:05Z"),
        (datetime(1, 1, 1, 1), 2, "0001-01-01T01:00:00Z"),
        (datetime(9999, 12, 31, 23), -2, "9999-12-31T23:00:00Z"),
    ],
)
def test_every_time_that_python_knows_can_be_told(moment: datetime, hours: int, told: str) -> None:
    assert commits.timestamp(moment.replace(tzinfo=timezone(timedelta(hours=hours)))) == told
