"""How a run of mirroring ends before it is done: by Ctrl-C, by a failure that none would escape, by a mistake."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.mirroring import mirror as mirroring
from fs_dropbox.mirroring.mirror import SMALL_BYTES, Mirror
from fs_dropbox.mirroring.steps import Observer, Step
from fs_dropbox.mirroring.transfer import CHUNK_BYTES, Place, StoppedError
from tests.fs_dropbox.mirroring.mirrored import content, run
from tests.fs_dropbox.scarce_threads import allow_threads

BOUND_SECONDS = 20.0


class SlowFS(MemoryFS):
    """Reads of one file wait for an event, then fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.reading = threading.Event()
        self.may_fail = threading.Event()

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file: Any = super().openbin(path, mode, buffering, **options)
        if mode == "r" and path == "/slow":

            def read(_: int = -1) -> bytes:
                self.reading.set()
                assert self.may_fail.wait(BOUND_SECONDS)
                raise self.error

            file.read = read
        return file


class Telling(Observer):
    """Calls somebody for each step that is done, and remembers failures."""

    def __init__(self, told: Callable[[Step], object]) -> None:
        self.told = told
        self.failures: list[str] = []

    def done(self, step: Step) -> None:
        self.told(step)

    def failed(self, step: Step, error: Exception) -> None:
        self.failures.append(step.path)


def test_ctrl_c_breaks_off_what_is_under_way_which_is_no_failure() -> None:
    source = SlowFS(errors.OperationFailed("slow", msg="closed"))
    source.writebytes("slow", b"x")
    observer = Telling(lambda step: None)
    mirror = Mirror(Place(source), Place(MemoryFS()), observer=observer, break_off=source.may_fail.set)
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        assert source.reading.wait(BOUND_SECONDS)
        signal.pthread_kill(main, signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        mirror.run()
    pressing.join()
    assert source.may_fail.is_set()
    assert observer.failures == [], "it failed for the end alone"


def test_only_ctrl_c_breaks_off_the_filesystems() -> None:
    source = MemoryFS()
    source.writebytes("f", b"x")

    def mistaken(step: Step) -> None:
        raise ZeroDivisionError

    broken: list[str] = []
    with pytest.raises(ZeroDivisionError):
        Mirror(
            Place(source), Place(MemoryFS()), observer=Telling(mistaken), break_off=lambda: broken.append("off")
        ).run()
    assert broken == []


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_mistake_amid_many_files_is_told(which: str) -> None:
    source = MemoryFS()
    for name in ("a", "b", "c"):
        source.writebytes(name, b"x")

    def mistaken(step: Step) -> None:
        if step.path == {"first": "a", "last": "c"}[which]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(source, MemoryFS(), workers=1, observer=Telling(mistaken))


def test_the_end_is_heard_amid_a_file(tmp_path: Path) -> None:
    source, reads = MemoryFS(), []
    source.writebytes("f", b"x" * 8 * CHUNK_BYTES)

    class Stopping(Observer):
        def advanced(self, size: int) -> None:
            reads.append(size)
            mirror.stop.set()

    with OSFS(str(tmp_path)) as target:
        mirror = Mirror(Place(source), Place(target), observer=Stopping())
        with pytest.raises(StoppedError):
            mirror.run()
    assert reads == [CHUNK_BYTES]
    assert list(tmp_path.iterdir()) == []


def test_the_end_is_heard_amid_a_comparison(dropbox_fs: DropboxFS) -> None:
    reads: list[int] = []

    class Stopping(MemoryFS):
        def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
            file: Any = super().openbin(path, mode, buffering, **options)
            whole = file.read

            def read(size: int = -1) -> Any:
                reads.append(size)
                mirror.stop.set()
                return whole(size)

            if mode == "r":
                file.read = read
            return file

    source = Stopping()
    source.writebytes("f", b"x" * 3 * CHUNK_BYTES)
    dropbox_fs.writebytes("f", b"y" * 3 * CHUNK_BYTES)
    mirror = Mirror(Place(source), Place(dropbox_fs))
    with pytest.raises(StoppedError):
        mirror.run()
    assert len(reads) == 1


def test_the_end_is_heard_amid_many_small_files(dropbox_fs: DropboxFS) -> None:
    source = MemoryFS()
    for number in range(20):
        source.writebytes(str(number), b"x")
    mirror = Mirror(Place(source), Place(dropbox_fs), observer=Telling(lambda step: mirror.stop.set()))
    with pytest.raises(StoppedError):
        mirror.run()


class StubbornFS(MemoryFS):
    """Fails to open the file "last" for writing, as late as it can."""

    def __init__(self, source: SlowFS, error: Exception) -> None:
        super().__init__()
        self.source = source
        self.error = error
        self.mirror: Mirror | None = None

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        if path == "/last" and "w" in mode:
            assert self.mirror is not None
            assert self.source.reading.wait(BOUND_SECONDS)
            self.source.may_fail.set()
            assert self.mirror.stop.wait(BOUND_SECONDS)
            raise self.error
        return super().openbin(path, mode, buffering, **options)


@pytest.mark.parametrize("error", [errors.InsufficientStorage("last"), ZeroDivisionError()])
def test_what_ended_a_run_first_is_told_but_hides_no_mistake(error: Exception) -> None:
    source = SlowFS(errors.RemoteConnectionError(msg="no network"))
    for name in ("slow", "last"):
        source.writebytes(name, b"x")
    target = StubbornFS(source, error)
    target.writetext("extra", "kept: not all that was to replace it is there")
    mirror = target.mirror = Mirror(Place(source), Place(target), delete=True)
    if isinstance(error, ZeroDivisionError):
        with pytest.raises(ZeroDivisionError):
            mirror.run()
    else:
        summary = mirror.run()
        assert isinstance(summary.ended_by, errors.RemoteConnectionError)
        assert [step.path for step, _ in summary.failures] == ["slow"], "the other failed for the end, too"
    assert target.exists("extra")


@pytest.mark.parametrize("size", [10, SMALL_BYTES + 1])
def test_no_more_files_are_under_way_than_asked_for(size: int) -> None:
    together = threading.Barrier(2)
    met: list[str] = []

    class Meeting(MemoryFS):
        def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
            if mode == "r":
                try:
                    together.wait(0.3)
                    met.append(path)
                except threading.BrokenBarrierError:
                    together.reset()
            return super().openbin(path, mode, buffering, **options)

    source = Meeting()
    for name in "abc":
        source.writebytes(name, b"x" * size)
    assert run(source, MemoryFS(), workers=1).copied == 3
    assert met == []


@pytest.mark.parametrize("small", [True, False])
def test_a_revoked_token_is_told_once(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch, small: bool
) -> None:
    if not small:
        monkeypatch.setattr(mirroring, "SMALL_BYTES", 0)
    source = MemoryFS()
    for number in range(300):
        source.writebytes(str(number), b"x")

    class Revoking(Observer):
        def __init__(self) -> None:
            self.failures = 0

        def planned(self, size: int) -> None:
            emulator.control.revoke_tokens()

        def failed(self, step: Step, error: Exception) -> None:
            self.failures += 1

    observer = Revoking()
    summary = run(source, dropbox_fs, observer=observer)
    assert isinstance(summary.ended_by, errors.PermissionDenied)
    assert "fs-dropbox login" in str(summary.ended_by)
    assert len(summary.failures) == observer.failures == 1


def test_what_does_not_answer_in_time_ends_the_run() -> None:
    source = SlowFS(errors.OperationTimeout("slow", msg="no answer"))
    source.may_fail.set()
    for name in ("slow", "slower"):
        source.writebytes(name, b"x")
    target = MemoryFS()
    summary = run(source, target, workers=1)
    assert isinstance(summary.ended_by, errors.OperationTimeout)
    assert target.listdir("/") == []


class BulkFS(MemoryFS):
    """Takes many files at once, and tells late what became of them."""

    def __init__(self, results: Callable[[list[str]], Iterator[tuple[int, Exception | None]]]) -> None:
        super().__init__()
        self.results = results

    def upload_files(self, files: Iterable[Any]) -> Iterator[tuple[int, Exception | None]]:
        return self.results([path for path, *_ in files])


def test_of_files_that_went_together_each_is_told_though_one_ends_the_run() -> None:
    def results(paths: list[str]) -> Iterator[tuple[int, Exception | None]]:
        for index, path in enumerate(paths):
            yield index, errors.InsufficientStorage(path) if path in ("/b", "/d") else None

    source, told = MemoryFS(), Telling(lambda step: done.append(step.path))
    done: list[str] = []
    for name in "abcde":
        source.writebytes(name, b"x")
    summary = run(source, BulkFS(results), observer=told)
    assert isinstance(summary.ended_by, errors.InsufficientStorage)
    assert (sorted(done), told.failures, summary.copied) == (["a", "c", "e"], ["b"], 3)


def test_ctrl_c_breaks_off_files_that_go_together() -> None:
    under_way, broken_off = threading.Event(), threading.Event()

    def results(paths: list[str]) -> Iterator[tuple[int, Exception | None]]:
        try:
            under_way.set()
            assert broken_off.wait(BOUND_SECONDS)
            yield 0, errors.RemoteConnectionError(paths[0])
        finally:
            assert broken_off.wait(BOUND_SECONDS), "it waited for the calls that it was to break off"

    def press() -> None:
        assert under_way.wait(BOUND_SECONDS)
        signal.pthread_kill(main, signal.SIGINT)

    source = MemoryFS()
    for name in "ab":
        source.writebytes(name, b"x")
    main = threading.get_ident()
    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        Mirror(Place(source), Place(BulkFS(results)), break_off=broken_off.set).run()
    pressing.join()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_machine_with_few_threads_mirrors_all_the_same(
    dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    source, back = MemoryFS(), MemoryFS()
    source.makedir("sub")
    for number in range(20):
        source.writebytes(f"sub/{number}", b"x" * number)
    source.writebytes("large", b"x" * 2 * SMALL_BYTES)
    allow_threads(monkeypatch, "fs-dropbox-mirror", threads)
    allow_threads(monkeypatch, "fs-dropbox-bulk", threads)
    assert run(source, dropbox_fs, "/there").copied == 21
    summary = Mirror(Place(dropbox_fs, "/there"), Place(back)).run()
    assert (summary.copied, content(back)) == (21, content(source))
