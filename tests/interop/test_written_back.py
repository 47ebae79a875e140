"""What real clients see of files that wait on the gateway's disk, and of those that Dropbox does not take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from sftp_gateway import SFTPGateway
from tests.waiting import eventually

from .programs import lftp, rclone, restic
from .stack import COMMITS, Stack, digest, digests, make_tree, serving

SOAK = pytest.mark.soak
pytestmark = [pytest.mark.interop, pytest.mark.parametrize("written_back", [True], ids=["write-back"])]


@pytest.fixture
def gateway(bare_stack: Stack) -> Iterator[SFTPGateway]:
    with serving(bare_stack) as gateway:
        yield gateway


@pytest.fixture
def patient(bare_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack whose gateway delivers nothing until it is asked to."""
    monkeypatch.setattr("sftp_gateway.write_back.delivery.QUIET_SECONDS", 3600.0)
    with serving(bare_stack, write_back_delay_seconds=3600.0):
        yield bare_stack


def files_in_dropbox(stack: Stack) -> int:
    """How many files Dropbox has, with nothing waited for."""
    return sum(size is not None for size in stack.emulator.control.tree().values())


def by_openssh(stack: Stack) -> None:
    stack.sftp("put -r tree", "get -r tree back", "put -r tree", "ls -la tree")


def by_lftp(stack: Stack) -> None:
    lftp(stack, "mirror -R --parallel=4 tree tree", "mirror -R tree tree", "mirror --parallel=4 tree back")


def by_rclone(stack: Stack) -> None:
    rclone(stack, "sync", "tree", "box:tree")
    rclone(stack, "check", "--download", "tree", "box:tree")
    rclone(stack, "sync", "--update", "tree", "box:tree")
    rclone(stack, "copy", "box:tree", "back")


@pytest.mark.parametrize("client", [by_openssh, pytest.param(by_lftp, marks=SOAK), pytest.param(by_rclone, marks=SOAK)])
def test_a_tree_goes_up_and_comes_back_before_anything_is_delivered(
    patient: Stack, client: Callable[[Stack], None]
) -> None:
    tree = make_tree(patient.folder / "tree")
    client(patient)
    assert digests(patient.folder / "back") == tree
    assert files_in_dropbox(patient) == 0
    assert patient.stored("/tree") == tree


@SOAK
def test_restic_works_before_anything_is_delivered(patient: Stack) -> None:
    make_tree(patient.folder / "tree")
    restic(patient, "init")
    restic(patient, "backup", "tree")
    assert "no errors were found" in restic(patient, "check", "--read-data").out
    assert files_in_dropbox(patient) == 0
    assert [path for path, size in patient.control.tree("/backup/data").items() if size]
    restic(patient, "restore", "latest", "--target", "back")
    assert digests(patient.folder / "back" / "tree") == digests(patient.folder / "tree")


def test_names_and_content_are_changed_before_anything_is_delivered(patient: Stack) -> None:
    content = patient.write("file", os.urandom(100_000)).read_bytes()
    patient.write("half", content[:40_000])
    os.utime(patient.folder / "file", (1_500_000_000, 1_500_000_000))
    patient.sftp("mkdir folder", "put -p file", "put half", "put file gone", "put half folder/old")
    patient.sftp("reput file half", "rename half whole", "rm gone", "rename file folder/old", "ls -l folder")
    patient.sftp("get -p folder/old back", "get whole")
    assert (patient.folder / "whole").read_bytes() == content
    assert (patient.folder / "back").stat().st_mtime == 1_500_000_000
    assert "not empty" in patient.try_sftp("rmdir folder").err
    assert files_in_dropbox(patient) == 0
    assert patient.stored() == {"whole": digest(content), "folder/old": digest(content)}
    assert patient.control.metadata("/folder/old")["client_modified"] == "2017-07-14T02:40:00Z"


@pytest.mark.usefixtures("gateway")
def test_times_that_come_after_close_are_kept(bare_stack: Stack) -> None:
    """rclone sets them so, as WinSCP and FileZilla do: nothing is sent again, and Dropbox has the times."""
    for name, moment in (("one", 1_500_000_000), ("folder/two", 1_500_000_001)):
        os.utime(bare_stack.write(f"tree/{name}", name.encode()), (moment, moment))
    rclone(bare_stack, "sync", "tree", "box:there")
    assert bare_stack.stored("/there") == digests(bare_stack.folder / "tree")
    assert bare_stack.control.metadata("/there/one")["client_modified"] == "2017-07-14T02:40:00Z"
    assert bare_stack.control.metadata("/there/folder/two")["client_modified"] == "2017-07-14T02:40:01Z"
    bare_stack.control.reset_counts()
    rclone(bare_stack, "sync", "tree", "box:there")
    assert bare_stack.stored("/there") == digests(bare_stack.folder / "tree")
    assert bare_stack.commits() == 0


def test_a_full_dropbox_is_told_by_no_close(gateway: SFTPGateway, bare_stack: Stack) -> None:
    dropbox = bare_stack.emulator.control
    content = bare_stack.write("file", os.urandom(1000)).read_bytes()
    dropbox.set_quota(100)
    bare_stack.sftp("put file", "get file back")
    assert (bare_stack.folder / "back").read_bytes() == content
    eventually(lambda: bare_stack.commits(), "nothing was tried")
    bare_stack.sftp("get file again")
    assert (bare_stack.folder / "again").read_bytes() == content
    assert gateway.pending().waiting == 1
    assert dropbox.tree() == {}
    dropbox.set_quota(1 << 40)
    assert bare_stack.stored() == {"file": digest(content)}


def test_what_dropbox_refuses_for_good_stays_until_somebody_removes_it(gateway: SFTPGateway, bare_stack: Stack) -> None:
    dropbox = bare_stack.emulator.control
    content = bare_stack.write("file", os.urandom(1000)).read_bytes()
    for route in COMMITS:
        dropbox.fault(route, "error", None, error={".tag": "path", "path": {".tag": "disallowed_name"}})
    bare_stack.sftp("put file")
    eventually(lambda: gateway.pending().failed == 1, "it was not refused")
    assert "file" in bare_stack.sftp("ls -1", "get file back")
    assert (bare_stack.folder / "back").read_bytes() == content
    bare_stack.sftp("rm file")
    assert gateway.pending().failed == 0
    dropbox.clear_faults()
    bare_stack.sftp("put file")
    assert bare_stack.stored() == {"file": digest(content)}
