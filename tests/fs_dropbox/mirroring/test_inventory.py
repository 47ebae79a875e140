"""What is found below a folder: entries that go meanwhile, that nobody can read, or that are no files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.steps import Action
from fs_dropbox.mirroring.transfer import Place, StoppedError
from tests.fs_dropbox.mirroring.mirrored import Recorder, content, run


def after_listing(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[str, list[os.DirEntry[str]]], list[Any] | None]
) -> None:
    """Have something happen to each local folder right after its names were read."""
    scandir = os.scandir

    @contextmanager
    def changing(path: str) -> Iterator[list[Any]]:
        with scandir(path) as entries:
            found = list(entries)
        yield change(path, found) or found

    monkeypatch.setattr(os, "scandir", changing)


def ignored(recorder: Recorder) -> dict[str, str]:
    return {step.path: step.reason for step in recorder.steps if step.action is Action.SKIP and step.reason}


def test_a_file_that_goes_while_its_folder_is_read_is_no_failure(
    source: FS, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = MemoryFS()
    target.writetext("extra", "x")
    after_listing(monkeypatch, lambda path, found: (local / "a.txt").unlink(missing_ok=True))
    summary = run(source, target, delete=True)
    assert summary.failures == []
    assert sorted(target.listdir("/")) == ["empty", "sub"]


class UnreadableEntry:
    """An entry of which the disk tells nothing."""

    name = "bad"
    path = "bad"

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> os.stat_result:
        raise OSError(5, "Input/output error")


def test_nothing_is_deleted_where_an_entry_of_the_source_cannot_be_read(
    source: FS, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = MemoryFS()
    target.writetext("bad", "perhaps the same")
    target.writetext("extra", "x")
    after_listing(
        monkeypatch, lambda path, found: [*found, UnreadableEntry()] if path.rstrip("/") == str(local) else None
    )
    summary = run(source, target, delete=True)
    assert [(step.path, str(error)) for step, error in summary.failures] == [("bad", "bad: Input/output error")]
    assert target.readtext("bad") == "perhaps the same"
    assert target.exists("extra")
    assert target.exists("a.txt")


def test_a_name_that_is_no_text_is_left_out_and_shown_as_far_as_it_is(source: FS, local: Path) -> None:
    with open(os.fsencode(local) + b"/latin-\xe4.txt", "wb"):
        pass
    target, recorder = MemoryFS(), Recorder()
    summary = run(source, target, observer=recorder)
    assert (summary.copied, summary.ignored, summary.failures) == (3, 1, [])
    assert ignored(recorder) == {"latin-�.txt": "its name is not valid UTF-8"}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_file_in_place_of_the_target_is_refused_and_stays(source: FS, tmp_path: Path, dry_run: bool) -> None:
    (tmp_path / "file").write_text("kept")
    with OSFS(str(tmp_path)) as disk, pytest.raises(errors.DirectoryExpected):
        run(source, disk, "/file", delete=True, dry_run=dry_run)
    assert (tmp_path / "file").read_text() == "kept"


def test_the_end_is_heard_while_folders_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (tmp_path / "src" / str(number)).mkdir(parents=True)
    target = MemoryFS()
    listed: list[str] = []

    def stopping(path: str, found: list[os.DirEntry[str]]) -> None:
        listed.append(path)
        mirror.stop.set()

    after_listing(monkeypatch, stopping)
    with OSFS(str(tmp_path / "src")) as disk:
        mirror = Mirror(Place(disk), Place(target, "/new"))
        with pytest.raises(StoppedError):
            mirror.run()
    assert len(listed) == 1
    assert not target.exists("/new")


def test_documents_are_mirrored_as_what_they_export_or_named(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    emulator.control.make_paper("/d/Notes.paper", "# Title")
    emulator.control.make_symlink("/d/link", "../../etc/passwd")
    emulator.control.write("/d/a.txt", b"plain")
    target, recorder = MemoryFS(), Recorder()
    summary = Mirror(Place(open_dropbox(), "/d"), Place(target), observer=recorder).run()
    assert (content(target), summary.failures) == ({"/a.txt": b"plain", "/Notes.paper.md": b"# Title"}, [])
    assert ignored(recorder) == {"link": "a symbolic link"}
    target, recorder = MemoryFS(), Recorder()
    Mirror(Place(open_dropbox(documents="as_is"), "/d"), Place(target), observer=recorder).run()
    assert content(target) == {"/a.txt": b"plain"}
    assert ignored(recorder)["Notes.paper"] == "an online document, which can only be exported"
