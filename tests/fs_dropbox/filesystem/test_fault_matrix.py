"""The matrix: every fault of the emulator during every kind of operation of the filesystem, whole and in time.

Each case has a folder of its own. What may come out: success, with the right bytes, the right tree and no version too
many; or one `fs.errors` error with the path and the reason, and the tree as it was. Where nobody can know whether a
change took place, the error says so, and the tree is one of the two. What the filesystem then shows is what is there.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.retry import RetryPolicy
from fs_dropbox.content_hash import BLOCK_SIZE
from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.faults import KINDS
from fs_dropbox.errors import UNSETTLED
from fs_dropbox.uploads.upload import Uploader

DEADLINE_SECONDS = 10.0
STALL_SECONDS = 0.3
PATIENT_SECONDS = 5.0
LARGE = bytes(range(256)) * (BLOCK_SIZE // 256) + b"and a little more"
MIDDLE = bytes(range(256)) * 2000
SEED = {"file.txt": b"seeded", "other.txt": b"other", "middle": MIDDLE, "folder/inner.txt": b"inner", "empty": None}
TOO_LONG = 90

State: TypeAlias = dict[str, bytes | None]  # path below the case's folder -> content, None for folders
numbers = itertools.count()


@dataclass(frozen=True)
class Operation:
    """`run` does it in a folder and checks what it returns; `changes` is what is different afterwards.

    `versions` are the revisions that paths then have: one more would be a commit that was done twice.
    """

    run: Callable[[DropboxFS, str], object]
    routes: tuple[str, ...]
    added: State
    removed: frozenset[str] = frozenset()
    versions: tuple[tuple[str, int], ...] = ()

    def after(self, before: State) -> State:
        return {path: content for path, content in before.items() if path not in self.removed} | self.added


def reads(run: Callable[[DropboxFS, str], object], *routes: str) -> Operation:
    return Operation(run, routes, {})


def writes(
    mode: str, name: str, data: bytes, result: bytes, *routes: str, versions: int = 1, spool: bool = False
) -> Operation:
    def run(account: DropboxFS, base: str) -> None:
        with account.openbin(f"{base}/{name}", mode) as file:
            if spool:
                assert file.read(3) == result[:3]
                file.seek(0)
            file.write(data)

    return Operation(run, routes, {name: result}, versions=((name, versions),))


def changes(
    run: Callable[[DropboxFS, str], object], *routes: str, added: State | None = None, removed: tuple[str, ...] = ()
) -> Operation:
    return Operation(run, routes, added or {}, frozenset(removed))


def check(condition: object) -> None:
    assert condition


def read_in_pieces(account: DropboxFS, base: str) -> None:
    with account.openbin(f"{base}/middle") as file:
        assert b"".join(iter(lambda: file.read(70_000), b"")) == MIDDLE


def read_anywhere(account: DropboxFS, base: str) -> None:
    file: Any = account.openbin(f"{base}/middle")
    with file:
        for start in (400_000, 10, 200_000):
            assert file.pread(start, 1000) == MIDDLE[start : start + 1000]


def download(account: DropboxFS, base: str) -> None:
    target = io.BytesIO()
    account.download(f"{base}/middle", target)
    assert target.getvalue() == MIDDLE


def walk(account: DropboxFS, base: str) -> None:
    found = sorted(account.walk.files(base))
    assert found == sorted(f"{base}/{path}" for path, content in SEED.items() if content is not None)


def restore(account: DropboxFS, base: str) -> None:
    first = account.versions(f"{base}/file.txt")[0].get("dropbox", "rev")
    account.restore(f"{base}/file.txt", first)


def write_together(account: DropboxFS, base: str) -> None:
    """Writers that come while another commits share their calls."""

    def write(number: int) -> None:
        account.writebytes(f"{base}/together {number}", b"%d" % number)

    account._parts.uploader.small_files._sessions = []  # those that were started ahead would last for the whole test
    with ThreadPoolExecutor(6) as pool:
        results = [pool.submit(write, number) for number in range(6)]
    for result in results:
        result.result()


def usage(account: DropboxFS, base: str) -> None:
    account._parts.about._usage = None  # it is remembered for a minute
    check(account.getmeta("usage")["total"])


def names(account: DropboxFS, base: str) -> set[str]:
    return {"file.txt", "other.txt", "middle", "folder", "empty"}


UPLOAD, DOWNLOAD, LOOK, LIST = "files/upload", "files/download", "files/get_metadata", "files/list_folder"
START, APPEND, FINISH = (f"files/upload_session/{name}" for name in ("start", "append_v2", "finish"))
BATCHES = tuple(f"files/upload_session/{name}" for name in ("start_batch", "append_batch", "finish_batch_v2"))
MOVE, COPY, DELETE, CREATE = "files/move_v2", "files/copy_v2", "files/delete_v2", "files/create_folder_v2"

OPERATIONS: dict[str, Operation] = {
    "read small": reads(lambda a, b: check(a.readbytes(f"{b}/file.txt") == b"seeded"), LOOK, DOWNLOAD),
    "read in pieces": reads(read_in_pieces, DOWNLOAD),
    "read anywhere": reads(read_anywhere, DOWNLOAD),
    "download": reads(download, DOWNLOAD),
    "overwrite": writes("w", "file.txt", b"new", b"new", UPLOAD, versions=2),
    "overwrite, large": writes("w", "file.txt", LARGE, LARGE, START, APPEND, FINISH, versions=2),
    "create": writes("w", "new", b"new", b"new", LOOK, UPLOAD),
    "create exactly": writes("x", "new", b"new", b"new", UPLOAD),
    "create exactly, large": writes("x", "new", LARGE, LARGE, FINISH),
    "append": writes("a", "file.txt", b"+", b"seeded+", LOOK, DOWNLOAD, UPLOAD, versions=2),
    "append to nothing": writes("a", "new", b"+", b"+", UPLOAD),
    "change in place": writes("r+", "file.txt", b"SEE", b"SEEded", DOWNLOAD, UPLOAD, versions=2),
    "change in place, large": writes("r+", "middle", LARGE, LARGE, FINISH, versions=2),
    "write and read": writes("w+", "new", b"new", b"new", UPLOAD),
    "upload": changes(lambda a, b: a.upload(f"{b}/new", io.BytesIO(LARGE)), FINISH, added={"new": LARGE}),
    "group commit": changes(
        write_together, *BATCHES, added={f"together {number}": b"%d" % number for number in range(6)}
    ),
    "getinfo": reads(lambda a, b: check(a.getinfo(f"{b}/file.txt", ["details"]).size == 6), LOOK),
    "setinfo": reads(lambda a, b: a.setinfo(f"{b}/file.txt", {"details": {"modified": 1}}), LOOK),
    "exists": reads(lambda a, b: check(not a.exists(f"{b}/nothing")), LOOK),
    "listdir": reads(lambda a, b: check(set(a.listdir(b)) == names(a, b)), LIST, f"{LIST}/continue"),
    "scandir": reads(lambda a, b: check({each.name for each in a.scandir(b)} == names(a, b)), LIST),
    "walk": reads(walk, LIST, f"{LIST}/continue"),
    "makedir": changes(lambda a, b: a.makedir(f"{b}/made"), CREATE, added={"made": None}),
    "makedirs": changes(lambda a, b: a.makedirs(f"{b}/made/in"), CREATE, added={"made": None, "made/in": None}),
    "remove": changes(lambda a, b: a.remove(f"{b}/file.txt"), LOOK, DELETE, removed=("file.txt",)),
    "removedir": changes(lambda a, b: a.removedir(f"{b}/empty"), LIST, DELETE, removed=("empty",)),
    "removetree": changes(lambda a, b: a.removetree(f"{b}/folder"), DELETE, removed=("folder", "folder/inner.txt")),
    "move": changes(
        lambda a, b: a.move(f"{b}/file.txt", f"{b}/moved"), MOVE, added={"moved": b"seeded"}, removed=("file.txt",)
    ),
    "move over a file": changes(
        lambda a, b: a.move(f"{b}/file.txt", f"{b}/other.txt", overwrite=True),
        DELETE,
        MOVE,
        added={"other.txt": b"seeded"},
        removed=("file.txt",),
    ),
    "movedir": changes(
        lambda a, b: a.movedir(f"{b}/folder", f"{b}/moved", create=True),
        MOVE,
        added={"moved": None, "moved/inner.txt": b"inner"},
        removed=("folder", "folder/inner.txt"),
    ),
    "copy": changes(lambda a, b: a.copy(f"{b}/file.txt", f"{b}/copied"), COPY, added={"copied": b"seeded"}),
    "copy over a file": changes(
        lambda a, b: a.copy(f"{b}/file.txt", f"{b}/other.txt", overwrite=True),
        DELETE,
        COPY,
        added={"other.txt": b"seeded"},
    ),
    "copydir": changes(
        lambda a, b: a.copydir(f"{b}/folder", f"{b}/copied", create=True),
        COPY,
        added={"copied": None, "copied/inner.txt": b"inner"},
    ),
    "geturl": reads(lambda a, b: check(a.geturl(f"{b}/file.txt").startswith("http")), "files/get_temporary_link"),
    "geturl to share": reads(
        lambda a, b: check(a.geturl(f"{b}/file.txt", "share").startswith("http")),
        "sharing/create_shared_link_with_settings",
    ),
    "versions": reads(lambda a, b: check(len(a.versions(f"{b}/file.txt")) == 1), "files/list_revisions"),
    "restore": changes(restore, "files/restore"),
    "usage": reads(usage, "users/get_space_usage"),
}
ROOT_INFO = {".tag": "user", "root_namespace_id": "", "home_namespace_id": ""}  # ids are filled in
FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "rate_limit", "retry_after": 0},
    "429 without Retry-After": {"kind": "rate_limit", "retry_after": None},
    "429 as text": {"kind": "rate_limit", "retry_after": 0, "form": "text"},
    "429 of the lock": {"kind": "rate_limit", "retry_after": 0, "reason": "too_many_write_operations"},
    "409 of the lock": {"kind": "too_many_write_operations"},
    "500": {"kind": "server_error", "status": 500},
    "503 with Retry-After": {"kind": "server_error", "status": 503, "retry_after": 0, "text": "<html>busy</html>"},
    "expired token": {"kind": "expired_token"},
    "invalid token": {"kind": "invalid_token"},
    "invalid root": {"kind": "error", "status": 422, "error": {".tag": "invalid_root", "invalid_root": ROOT_INFO}},
    "cut before": {"kind": "cut_request"},
    "cut within": {"kind": "cut_request", "at_byte": 2},
    "reset": {"kind": "reset"},
    "cut answer": {"kind": "cut_body"},
    "blank answer": {"kind": "blank_body"},
    "wrong bytes": {"kind": "corrupt_body"},
    "slow answer": {"kind": "slow_body", "pieces": 4, "seconds": 0.005},
    "lost answer": {"kind": "ambiguous"},
    "lost behind 502": {"kind": "ambiguous", "status": 502},
    "lost twice": {"kind": "ambiguous", "reset": True, "count": 2},
    "stalled answer": {"kind": "stall", "at": "answer"},
}
# These take their time, so that one operation for each route has to do.
STALLS: dict[str, dict[str, Any]] = {
    "stalled request": {"kind": "stall", "at": "request"},
    "stalled body": {"kind": "stall", "at": "body"},
}
# What ends the cursor of a listing may end the listing; wrong bytes of content are refused, see test_faults.py.
MAY_FAIL = {"wrong bytes"}
LASTING: dict[str, dict[str, Any]] = {
    "429 for long": {"kind": "rate_limit", "retry_after": TOO_LONG},
    "500": FAULTS["500"],
    "expired token": FAULTS["expired token"],
    "refused": {"kind": "error", "status": 403, "error": {".tag": "no_permission"}},
    "reset": FAULTS["reset"],
    "wrong bytes": {"kind": "corrupt_body", "at_byte": 0},
    "lost answer": FAULTS["lost answer"],
}
CASES = [
    pytest.param(name, route, id=f"{name}: {route.rpartition('/')[2]}")
    for name, operation in OPERATIONS.items()
    for route in operation.routes
]
# Large files take their time as well: one of the operations that share a route meets every fault, the others these.
TELLING = ("500", "expired token", "cut before", "lost answer", "lost twice")
FIRST = {route: name for name, operation in reversed(OPERATIONS.items()) for route in operation.routes}


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def account(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> Iterator[DropboxFS]:
    """An account whose pauses are short, with small pages and blocks, so that small trees have many calls."""
    policy = RetryPolicy(attempts=4, deadline_seconds=DEADLINE_SECONDS, first_pause_seconds=0.002)
    monkeypatch.setattr("fs_dropbox.api.client.RetryPolicy", lambda: policy)
    monkeypatch.setattr("fs_dropbox.api.client.PAGE_ENTRIES", 3)
    monkeypatch.setattr("fs_dropbox.api.retry.DEFAULT_RETRY_AFTER_SECONDS", 0.01)
    monkeypatch.setitem(Uploader.__init__.__kwdefaults__, "block_bytes", BLOCK_SIZE)  # type: ignore[arg-type]
    emulator.control.latency(commit_seconds=0.01, patience_seconds=5.0)  # so that writers meet
    yield open_dropbox(change_feed=False, cache_ttl_seconds=1000, timeout_seconds=PATIENT_SECONDS)
    emulator.control.clear_faults()


def seed(emulator: Emulator) -> str:
    base = f"/{next(numbers)}"
    for path, content in SEED.items():
        emulator.control.seed(f"{base}/{path}", content)
    return base


def state(emulator: Emulator, base: str) -> State:
    """Return what is below a folder."""
    prefix = f"{base}/"
    return {
        path.removeprefix(prefix): None if size is None else emulator.control.read(path)
        for path, size in emulator.control.tree(base).items()
    }


def faults_for(name: str, route: str, faults: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if FIRST[route] == name:
        return faults | (STALLS if faults is FAULTS else {"stalled answer": FAULTS["stalled answer"]})
    if LARGE in OPERATIONS[name].added.values():
        return {fault: parameters for fault, parameters in faults.items() if fault in TELLING}
    return faults


def strike(emulator: Emulator, route: str, fault: dict[str, Any], count: int | None) -> None:
    parameters = dict(fault)
    if "error" in parameters and "invalid_root" in parameters["error"]:
        ids = emulator.control.account()["root_info"]
        parameters["error"] = {".tag": "invalid_root", "invalid_root": ids}
    if parameters["kind"] == "corrupt_body" and route != DOWNLOAD:
        parameters["at_byte"] = 0  # anywhere else in JSON nobody could see it
    emulator.control.fault(route, parameters.pop("kind"), parameters.pop("count", count), **parameters)


def check_what_is_shown(account: DropboxFS, emulator: Emulator, base: str) -> None:
    """Check that what the filesystem knows by now is what is there."""
    shown = {path.removeprefix(f"{base}/"): info.is_dir for path, info in account.walk.info(base)}
    assert shown == {path: content is None for path, content in state(emulator, base).items()}


def attempt(account: DropboxFS, operation: Operation, base: str, stalls: bool) -> fs.errors.FSError | None:
    """Carry out an operation in time; returns its error."""
    impatient = STALL_SECONDS if LARGE not in operation.added.values() else 1.0
    account._parts.client._caller._timeout_seconds = impatient if stalls else PATIENT_SECONDS
    began = time.monotonic()
    try:
        operation.run(account, base)
    except fs.errors.FSError as error:
        return error
    finally:
        assert time.monotonic() - began < 3 * DEADLINE_SECONDS  # of one call
    return None


@pytest.mark.parametrize(("name", "route"), CASES)
def test_a_fault_that_passes_goes_unnoticed(account: DropboxFS, emulator: Emulator, name: str, route: str) -> None:
    operation = OPERATIONS[name]
    for fault, parameters in faults_for(name, route, FAULTS).items():
        base = seed(emulator)
        before = state(emulator, base)
        struck = emulator.control.faults_struck
        strike(emulator, route, parameters, 1)
        error = attempt(account, operation, base, parameters["kind"] == "stall")
        # Whether writers meet is up to their threads.
        assert emulator.control.faults_struck > struck or name == "group commit", fault
        emulator.control.clear_faults()
        if error is not None:
            assert fault in MAY_FAIL, (fault, error)
            assert base in str(error), fault
            assert state(emulator, base) == before, fault
            continue
        assert state(emulator, base) == operation.after(before), fault
        check_what_is_shown(account, emulator, base)
        for path, count in operation.versions:
            assert len(account.versions(f"{base}/{path}")) == count, fault


@pytest.mark.parametrize(("name", "route"), CASES)
def test_a_fault_that_lasts_is_one_clear_error(account: DropboxFS, emulator: Emulator, name: str, route: str) -> None:
    operation = OPERATIONS[name]
    for fault, parameters in faults_for(name, route, LASTING).items():
        base = seed(emulator)
        before = state(emulator, base)
        strike(emulator, route, parameters, None)
        error = attempt(account, operation, base, parameters["kind"] == "stall")
        emulator.control.clear_faults()
        after, now = operation.after(before), state(emulator, base)
        if error is None:
            assert now == after, fault
        else:
            reason = getattr(error, "reason", None) or str(error)
            assert base in str(error) or name == "usage", (fault, error)
            assert len(reason) > 10, (fault, error)
            if "restore its rev" in str(error):  # what was to be replaced: Dropbox lets nothing come back for now
                now.setdefault("other.txt", before["other.txt"])
            for path in {*before, *after, *now}:
                assert now.get(path, ...) in (before.get(path, ...), after.get(path, ...)), (fault, path)
            if now != before and name != "group commit":
                assert UNSETTLED in str(error), (fault, error)
        thaw(account)
        check_what_is_shown(account, emulator, base)


def thaw(account: DropboxFS) -> None:
    """Let time pass for the account's brake."""
    governor = account._parts.client.governor
    with governor._lock:
        governor._frozen_until = dict.fromkeys(governor._frozen_until, 0.0)


def test_no_kind_of_fault_is_left_out() -> None:
    struck = {parameters["kind"] for parameters in (*FAULTS.values(), *STALLS.values(), *LASTING.values())}
    # Only cursors are reset: see the next. What is late is done after this has been looked at: see test_settling.py.
    assert struck == KINDS - {"cursor_reset", "late"}


@pytest.mark.parametrize("name", ["listdir", "walk"])
def test_a_cursor_that_is_reset_within_a_listing(account: DropboxFS, emulator: Emulator, name: str) -> None:
    base = seed(emulator)
    emulator.control.fault(f"{LIST}/continue", "cursor_reset")
    assert attempt(account, OPERATIONS[name], base, stalls=False) is None
    assert emulator.control.faults_struck
