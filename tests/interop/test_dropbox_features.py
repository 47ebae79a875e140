"""What Dropbox has beyond files, as SFTP clients meet it: documents, versions, deleted files, shared folders."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from sftp_gateway import UserConfig

from .stack import Stack, serving

pytestmark = pytest.mark.interop

TEXT = "# Notes\n" * 10_000


@pytest.fixture
def viewed(bare_stack: Stack) -> Iterator[Stack]:
    """A gateway whose user may look back in time; ann's root is a folder of the account."""
    url = f"{bare_stack.emulator.fs_url}&views=on"
    user = UserConfig(name="ann", public_keys=(bare_stack.public_key,), url=url)
    with serving(bare_stack, users=(user,)):
        yield bare_stack


def test_sftp_looks_back_in_time_and_copies_out(viewed: Stack) -> None:
    viewed.control.write("/a/report.txt", b"first")
    viewed.control.advance(60)
    viewed.control.write("/a/report.txt", b"second one")
    viewed.control.write("/a/gone.txt", b"gone")
    viewed.control.write("/old/deep/x.txt", b"x")
    viewed.control.delete("/a/gone.txt")
    viewed.control.delete("/old")
    assert ".versions" not in viewed.sftp("ls -a1")
    names = sorted(re.findall(r"\d{4}-\S+\.txt", viewed.sftp("cd /.versions/a/report.txt", "ls -1")))
    assert len(names) == 2
    viewed.sftp(f"get /.versions/a/report.txt/{names[0]} first.txt")
    assert (viewed.folder / "first.txt").read_bytes() == b"first"
    viewed.sftp("get -r /.deleted everything")
    assert (viewed.folder / "everything/a/gone.txt").read_bytes() == b"gone"
    assert (viewed.folder / "everything/old/deep/x.txt").read_bytes() == b"x"
    viewed.sftp("get -r /.versions history")
    assert sorted(path.name for path in (viewed.folder / "history/a/report.txt").iterdir()) == names
    viewed.sftp("get -r / all")
    assert sorted(path.name for path in (viewed.folder / "all").rglob("*")) == ["a", "report.txt"]


def test_sftp_changes_nothing_in_a_view(viewed: Stack) -> None:
    viewed.control.write("/report.txt", b"first")
    viewed.control.write("/gone.txt", b"gone")
    viewed.control.delete("/gone.txt")
    before = viewed.control.tree()
    viewed.write("new.txt", b"new")
    for line in ("put new.txt /.deleted/new.txt", "put new.txt /.deleted/gone.txt"):
        refused = viewed.try_sftp(line)
        assert refused.code != 0, line
        assert "dest open" in refused.err, refused.err  # before a byte is sent
    with viewed.connection() as sftp, pytest.raises(PermissionError, match="nothing can be changed in"):
        sftp.remove("/.deleted/gone.txt")
    for line in ("mkdir /.versions/x", "rename /report.txt /.versions/report.txt", "rmdir /.versions/report.txt"):
        assert viewed.try_sftp(line).code != 0, line
    assert viewed.control.tree() == before


def test_documents_arrive_whole(viewed: Stack) -> None:
    """Clients take the size that they are told for the end of the file: paramiko compares it, sshfs stops there."""
    viewed.control.make_paper("/Notes.paper", TEXT)
    viewed.control.make_google_doc("/Sheet.gsheet", b"xlsx" * 1000)
    listing = viewed.sftp("ls -l")
    assert re.search(rf" {len(TEXT)} .* Notes\.paper\.md", listing), listing
    viewed.sftp("get Notes.paper.md", "get Sheet.gsheet.xlsx")
    assert (viewed.folder / "Notes.paper.md").read_text() == TEXT
    assert (viewed.folder / "Sheet.gsheet.xlsx").read_bytes() == b"xlsx" * 1000
    with viewed.connection() as sftp:
        sftp.get("/Notes.paper.md", str(viewed.folder / "again.md"))
    assert (viewed.folder / "again.md").read_text() == TEXT
    assert "dest open" in viewed.try_sftp("put Notes.paper.md").err
    with viewed.connection() as sftp, pytest.raises(PermissionError, match="a Paper document can be edited in Dropbox"):
        sftp.open("/Notes.paper.md", "w")
    viewed.sftp("rename Notes.paper.md Other.paper.md", "rm Sheet.gsheet.xlsx")
    assert list(viewed.control.tree()) == ["/Other.paper"]


def test_shared_folders_that_are_not_mounted(viewed: Stack) -> None:
    control = viewed.control
    control.add_account("bob@example.com")
    control.write("/Plans/q1/plan.txt", b"plan", account="bob@example.com")
    control.share_folder_with_account("/Plans", "ann@example.com", mounted=False, account="bob@example.com")
    viewed.sftp("get -r /.shared/Plans plans")
    assert (viewed.folder / "plans/q1/plan.txt").read_bytes() == b"plan"
