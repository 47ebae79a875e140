"""`Machine`: does things at random to the files of a folder, and to local files, which it compares them with."""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import fs.errors

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import UNSETTLED
from tests.fs_dropbox.files import random_faults
from tests.fs_dropbox.files.small_blocks import UNIT

NAMES: Final = ("a.txt", "B.bin", "sub/c", "sub/D.dat", "other/\u00e9")
MODES: Final = ("r", "r+", "w", "w+", "x", "x+", "a", "a+")
SIZES: Final = (0, 1, 10, 255, 256, 257, 511, 700, 1023, 1024, 1025, 2048, 2049, 4096, 5000, 9000)
LARGEST: Final = 14 * UNIT
ERRORS: Final = (fs.errors.FSError, OSError)


@dataclass
class Handle:
    """A file that is open, and the local one that it has to be like."""

    path: str
    mode: str
    file: Any
    local: Any
    local_path: Path
    struck: int
    """Faults before it was opened."""
    base: str
    """The rev that it was opened on, "" of a new one."""
    is_text: bool
    is_stream: bool
    resumes: bool
    is_changed: bool = False
    failed: bool = False
    written: bytearray = field(default_factory=bytearray)

    @property
    def writes(self) -> bool:
        return self.mode != "r"


class Machine:
    """Owns a folder of the account, which it looks at through the emulator, too. For one thread.

    `follows`: the accounts know at once what others have changed.
    """

    def __init__(
        self,
        emulator: Emulator,
        accounts: list[DropboxFS],
        folder: str,
        scratch: Path,
        *,
        faults: bool,
        follows: bool,
    ) -> None:
        self.control = emulator.control
        self.accounts = accounts
        self.folder = folder
        self.scratch = scratch
        self.chance = random.Random(folder)
        self.faults = faults
        self.follows = follows
        self.is_corrupting = False  # what is read in part is not checked
        self.handles: list[Handle] = []
        self.contents: dict[str, bytes] = {}  # by rev
        self.resumable: list[tuple[str, bytes]] = []
        self.log: list[str] = []
        self.opened = 0
        scratch.mkdir(parents=True)
        for path in (f"{folder}/{name}" for name in NAMES):
            if self.chance.random() < 0.6:
                self.control.write(path, self.some_bytes())
            else:
                self.control.seed(os.path.dirname(path))

    def run(self, steps: int) -> None:
        """Do so many things, and close what is open; raises AssertionError with what was done."""
        try:
            for _ in range(steps):
                self.step()
            while self.handles:
                self.end(self.handles.pop())
        except Exception as error:
            done = "\n".join(self.log[-60:])
            raise AssertionError(f"{self.folder}: {type(error).__name__}: {error}\nafter\n{done}") from error
        finally:
            self.control.clear_faults()
            for handle in self.handles:
                handle.local.close()
                handle.file.close() if handle.mode == "r" else handle.file.abort()

    def step(self) -> None:
        if self.faults and self.chance.random() < 0.3:
            self.note(random_faults.declare(self.control, self.chance))
            self.is_corrupting |= "corrupt" in self.log[-1]
        roll = self.chance.random()
        if not self.handles or (roll < 0.15 and len(self.handles) < 4):
            self.open()
        elif roll < 0.65:
            self.use(self.chance.choice(self.handles))
        elif roll < 0.82:
            self.end(self.handles.pop(self.chance.randrange(len(self.handles))))
        elif roll < 0.9:
            self.change_tree()
        elif roll < 0.95:
            self.foreign_change()
        elif roll < 0.975:
            self.store_many()
        else:
            self.read_all()

    def note(self, text: object) -> None:
        self.log.append(str(text))

    # The account as it is

    def tree(self) -> dict[str, bytes]:
        """Return the files by their paths in lower case, and note the revisions."""
        there = {}
        for path, size in self.control.tree(self.folder).items():
            if size is not None:
                there[path.lower()] = self.contents[self.rev(path)] = self.control.read(path)
        return there

    def rev(self, path: str) -> str:
        return str(self.control.metadata(path).get("rev", "folder")) if self.control.exists(path) else ""

    def check_excuse(self, error: Exception, struck: int, excused: bool) -> None:
        """Raise AssertionError where no fault since there were `struck` explains an error, nor anything else."""
        if not excused and self.control.faults_struck == struck:
            raise AssertionError(f"without a fault: {error!r}") from error

    # Choices

    def some_bytes(self, most: int = LARGEST) -> bytes:
        size = min(self.chance.choice(SIZES), self.chance.choice((most, 600)))
        data = self.chance.randbytes(max(1, size // 4)).hex().encode()
        return b"\n".join(data[at : at + 60] for at in range(0, len(data), 60))[:size].ljust(size, b"-")

    def some_path(self) -> str:
        there = list(self.tree())
        if there and self.chance.random() < 0.6:
            return self.chance.choice(there)
        return f"{self.folder}/{self.chance.choice(NAMES)}"

    def some_account(self) -> Any:
        return self.chance.choice(self.accounts)

    # Files

    def open(self) -> None:
        path, mode, account = self.some_path(), self.chance.choice(MODES), self.some_account()
        is_text = self.chance.random() < 0.25
        is_stream = mode in ("w", "x") and not is_text and self.chance.random() < 0.4
        resumed = self.chance.choice([None, *self.resumable]) if is_stream else None
        options = {"seekable": False} | ({} if resumed is None else {"resume": resumed[0]}) if is_stream else {}
        is_there, latest, struck = path.lower() in self.tree(), self.rev(path), self.control.faults_struck
        self.note(f"open {path} {mode} text={is_text} {options} there={is_there}")
        try:
            file = (account.open if is_text else account.openbin)(path, mode, **options)
        except ERRORS as error:
            self.note(f"  {error!r}")
            excused = (mode[0] == "r" and not is_there) or (mode[0] == "x" and is_there) or resumed is not None
            excused = excused or not self.control.exists(os.path.dirname(path)) or latest == "folder"
            self.check_excuse(error, struck, excused or not self.follows)
            return
        version = (file.buffer.raw if is_text else file).version
        self.opened += 1
        local_path = self.scratch / str(self.opened)
        if version:
            self.tree()
            local_path.write_bytes(self.contents[version])
            assert mode == "r" or version == latest, "it was not opened on what is there"
        else:
            assert mode[0] in "wx" or not is_there, "what is there was not found"
        local = (
            local_path.open(mode, encoding="utf-8", newline="") if is_text else local_path.open(mode + "b", buffering=0)
        )
        handle = Handle(path, mode, file, local, local_path, struck, version, is_text, is_stream, resumed is not None)
        self.handles.append(handle)
        if resumed is not None:
            self.write_again(handle, resumed[1])

    def write_again(self, handle: Handle, data: bytes) -> None:
        """Write what Dropbox has of a file, or something else, as it should not be."""
        if data and self.chance.random() < 0.3:
            at = self.chance.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        self.do(handle, lambda file: file.write(data), f"write again {len(data)}", data)

    def use(self, handle: Handle) -> None:
        chance, roll = self.chance, self.chance.random()
        if handle.writes and (handle.is_stream or roll < 0.5):
            data = self.some_bytes()
            given = data.decode() if handle.is_text else data
            self.do(handle, lambda file: file.write(given), f"write {len(data)}", data)
        elif handle.is_text and roll < 0.7:
            whence = chance.choice((io.SEEK_SET, io.SEEK_END))
            self.do(handle, lambda file: file.seek(0, whence), f"seek 0 {whence}")
        elif roll < 0.7:
            offset = chance.choice((0, 1, 255, 256, 1000, 1024, 2048, 3000, chance.randrange(LARGEST)))
            whence = chance.choice((io.SEEK_SET, io.SEEK_SET, io.SEEK_CUR, io.SEEK_END))
            if whence != io.SEEK_SET and chance.random() < 0.7:
                offset = -min(offset, 50)
            self.do(handle, lambda file: file.seek(offset, whence), f"seek {offset} {whence}")
        elif handle.writes and roll < 0.78 and not handle.is_text:
            size = chance.choice((0, 1, 700, 1024, 2048, None, chance.randrange(LARGEST)))
            before = os.path.getsize(handle.local_path)
            self.do(handle, lambda file: file.truncate(size), f"truncate {size}")
            handle.is_changed |= before != os.path.getsize(handle.local_path)
        elif not handle.writes or "+" in handle.mode:
            most = chance.choice((0, 1, 100, 256, 1000, 3000, -1))
            if chance.random() < 0.2:
                self.do(handle, lambda file: file.readline(), "readline")
            else:
                self.do(handle, lambda file: file.read(most), f"read {most}")
        elif not handle.is_text:
            self.do(handle, lambda file: file.tell(), "tell")

    def do(self, handle: Handle, work: Callable[[Any], Any], what: str, data: bytes = b"") -> None:
        if handle.failed:
            return
        self.note(f"{what} on {handle.path} {handle.mode}")
        if handle.is_text and handle.writes:
            handle.local.flush()  # Python before 3.13 reads elsewhere, and writes elsewhere later
        expected: Any = None
        try:
            expected = work(handle.local)
            is_wrong = False
        except OSError:
            is_wrong = True
        try:
            came = work(handle.file)
        except ERRORS as error:
            self.note(f"  {error!r}")
            handle.failed = not is_wrong
            self.check_excuse(error, handle.struck, is_wrong or handle.resumes)
            return
        handle.written += data
        if handle.writes or not self.is_corrupting:
            assert not is_wrong, "what files on disk refuse was done"
            assert came == expected, f"{what}: came {short(came)}, not {short(expected)}"

    def end(self, handle: Handle) -> None:
        before, rev = self.tree(), self.rev(handle.path)
        handle.local.close()
        if not handle.writes:
            handle.file.close()
            return
        if self.chance.random() < 0.2:
            self.discard(handle)
            assert self.tree() == before, "a file that was discarded has changed something"
            return
        wanted, key = handle.local_path.read_bytes(), handle.path.lower()
        self.note(f"close {handle.path} {handle.mode} {len(wanted)}")
        error: Exception | None = None
        try:
            handle.file.close()
        except ERRORS as caught:
            self.note(f"  {caught!r}")
            error = caught
        after = self.tree()
        old, new = before.pop(key, None), after.pop(key, None)
        assert after == before, "another file has changed"
        is_stale = rev != handle.base and (bool(handle.base) or handle.mode[0] in "xa")
        if error is None:
            assert not handle.failed, "closed without an error, though something had failed"
            is_new = not handle.base  # of r+ and a nothing is committed where nothing was changed
            is_committed = bool(is_new or handle.written or handle.is_changed)
            assert not (is_committed and is_stale), "a lost update"
            assert new == (wanted if is_committed else old), f"Dropbox has {short(new)}, not {short(wanted)}"
        else:
            assert new == old or (is_unknown(error) and new == wanted), f"{error!r}: Dropbox has {short(new)}"
            excused = is_stale or handle.failed or handle.resumes or rev == "folder"
            self.check_excuse(error, handle.struck, excused)

    def discard(self, handle: Handle) -> None:
        self.note(f"discard {handle.path}")
        if self.chance.random() < 0.5:
            with contextlib.suppress(KeyError), handle.file:
                raise KeyError
        else:
            handle.file.abort()
            handle.file.close()
        known = handle.file.checkpoint() if handle.is_stream and not handle.failed else None
        if known is not None:
            assert known[1] <= len(handle.written)
            self.resumable.append((known[0], bytes(handle.written)))

    def read_all(self) -> None:
        account = self.some_account()
        for path in sorted(self.tree()):
            struck = self.control.faults_struck
            try:
                with account.openbin(path) as file:
                    data, version = file.read(), file.version
            except ERRORS as error:
                self.note(f"  read {path}: {error!r}")
                self.check_excuse(error, struck, not self.follows)
            else:
                assert data == self.contents[version], f"{path}: read {short(data)}"

    # Everything else that happens to them

    def change_tree(self) -> None:
        """Copy, move, remove. What faults do to these is tested elsewhere."""
        self.control.clear_faults()
        account, source, target = self.some_account(), self.some_path(), self.some_path()
        what = self.chance.choice(("copy", "move", "remove", "movedir"))
        self.note(f"{what} {source} {target}")
        before = self.tree()
        with contextlib.suppress(fs.errors.FSError):
            if what == "remove":
                account.remove(source)
            elif what == "movedir":
                account.movedir(os.path.dirname(source), f"{self.folder} away", create=True)
                account.movedir(f"{self.folder} away", os.path.dirname(source), create=True)
            else:
                getattr(account, what)(source, target, overwrite=self.chance.random() < 0.7)
        after = self.tree()
        lost = set(before) - set(after) - ({source.lower()} if what in ("remove", "move") else set())
        assert not lost, lost
        assert what != "move" or before.get(source.lower()) in (None, *after.values())

    def foreign_change(self) -> None:
        path = self.some_path()
        if self.control.exists(path) and self.chance.random() < 0.3:
            self.note(f"foreign removal of {path}")
            self.control.delete(path)
        else:
            self.note(f"foreign change of {path}")
            self.control.write(path, self.some_bytes())
        for account in self.accounts:
            if self.chance.random() < 0.5:
                account.forget("/")

    def store_many(self) -> None:
        wanted = [(self.some_path(), self.some_bytes(3 * UNIT)) for _ in range(self.chance.choice((1, 3, 8)))]
        self.note(f"store {[(path, len(data)) for path, data in wanted]}")
        before = self.tree()
        possible: dict[str, list[bytes | None]] = {path: [data] for path, data in before.items()}
        items = [(path, lambda data=data: io.BytesIO(data), len(data), None) for path, data in wanted]
        for index, error in sorted(self.some_account().upload_files(items), key=lambda each: int(each[0])):
            known = possible.setdefault(wanted[index][0].lower(), [None])
            if error is None:
                known[:] = [wanted[index][1]]
            elif is_unknown(error):
                known.append(wanted[index][1])
        after = self.tree()
        for path, contents in possible.items():
            assert after.pop(path, None) in contents, f"{path} is none of {[short(each) for each in contents]}"
        assert not after


def is_unknown(error: Exception) -> bool:
    """Whether an error says that what it is about may have been done all the same."""
    return UNSETTLED in str(error)


def short(value: Any) -> str:
    return f"{len(value)} of {value[:30]!r}" if isinstance(value, (bytes, str)) else repr(value)
