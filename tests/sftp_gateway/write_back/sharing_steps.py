"""Random steps of clients of an account whose folders others share, move, close and spell anew, with write-back."""

from __future__ import annotations

import contextlib
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fs
import pytest

from fs_dropbox.emulator import Emulator
from sftp_gateway.files.folding import fold_path
from sftp_gateway.files.tree import Tree
from sftp_gateway.requests.at_once import AtOnce
from sftp_gateway.requests.operations import Operations
from sftp_gateway.sftp.packets import Attributes, Extension, Kind, Status
from sftp_gateway.sftp.parsing import Request
from sftp_gateway.write_back import delivery
from sftp_gateway.write_back.between import WriteBackLimits
from sftp_gateway.write_back.filesystem import WriteBackFS
from sftp_gateway.write_back.journal import Journal
from tests.sftp_gateway.raw_client import C, R, Reply, T, W, X, parsed
from tests.sftp_gateway.without_doors import operations_on
from tests.waiting import eventually

ANN, BOB = "ann@example.com", "bob@example.com"
OWN, OWN_BELOW, SHARED = "/\u00d6wn", "/\u00d6wn/B\u00e9low", "/Shared"
FAULTS = ("server_error", "reset", "cut_request", "ambiguous", "rate_limit")
STEPS = {
    "put": 14,
    "change_case": 6,
    "change_case_of_folder": 4,
    "move": 4,
    "read": 8,
    "list_folder": 4,
    "hurry": 4,
    "wait": 4,
    "share_differently": 5,
    "move_mount": 2,
    "unmount": 2,
    "mount": 4,
    "others_write": 3,
    "fault": 2,
    "restart": 1,
}


class Sharing:
    """Each file has a name and a content of its own; whatever was acknowledged is somewhere in the end."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.log: list[str] = []
        self.number = 0
        self.emulator = Emulator().start()
        self.control = self.emulator.control
        self.control.add_account(BOB, "Bob")
        self.control.seed(OWN_BELOW)
        self.control.seed("/Team", account=BOB)
        self.namespace = self.control.share_folder_with_account("/Team", ANN, account=BOB)
        self.control.move("/Team", SHARED)
        self.faulty = self.chance.random() < 0.4
        self.acknowledged: dict[bytes, str] = {}  # by content: the path that it was given last
        self.own: dict[str, bytes] = {}  # by folded path: what is in the own folder, where nobody else changes anything
        self.unsure: set[str] = set()
        self.taken_along: set[bytes] = set()
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.folder / "journal", fold=fold_path)
        dropbox: Any = fs.open_fs(self.emulator.plain_fs_url)
        limits = WriteBackLimits(delay_seconds=0.05)
        self.filesystem = WriteBackFS(dropbox, self.journal, label="ann", limits=limits)
        self.tree = Tree(self.filesystem, spool_directory=self.folder / "spool")
        views = [self.tree.view(write_back=True), self.tree.view(write_back=True), self.tree.view()]
        self.sessions = [operations_on(view) for view in views]
        self.at_once = [AtOnce(session, view) for session, view in zip(self.sessions, views, strict=True)]

    def close(self) -> None:
        self.tree.close()
        self.filesystem.close()

    def run(self, steps: int) -> None:
        for number in range(steps):
            (kind,) = self.chance.choices(list(STEPS), list(STEPS.values()))
            self.log.append(f"{number} {kind}")
            getattr(self, kind)()
        self.end()

    # -- clients

    def ask(self, session: Operations, kind: int, **fields: Any) -> Reply:
        request = Request(kind, 1, **fields)
        body = self.at_once[self.sessions.index(session)].answer(request)
        reply = parsed((body if body is not None else session.answer(request))[4:])
        told = {name: value for name, value in fields.items() if name in ("path", "target", "flags", "offset")}
        self.log.append(f"  {self.sessions.index(session)} {Kind(kind).name} {told} -> {reply}")
        assert "internal error" not in reply.text, reply.text
        return reply

    def spelled(self, path: str) -> str:
        """Spell a path in another way."""
        change: Callable[[str], str] = self.chance.choice((str, str, str.upper, str.lower, str.swapcase))
        path = change(path)
        return unicodedata.normalize("NFC", path) if self.chance.random() < 0.5 else unicodedata.normalize("NFD", path)

    def put(self) -> None:
        session, self.number = self.chance.choice(self.sessions), self.number + 1
        folder = self.chance.choice((OWN, OWN_BELOW, SHARED, SHARED, "/Moved"))
        path = self.spelled(f"{folder}/F\u00efle{self.number}")
        content = f"{self.number}:".encode() + self.chance.randbytes(self.chance.choice((5, 100, 5000, 100_000)))
        reply = self.ask(session, Kind.OPEN, path=path, flags=self.chance.choice((W | C | T, W | C | X, W | C)))
        if reply.kind != Kind.HANDLE:
            return
        half = len(content) // 2
        done = self.ask(session, Kind.WRITE, handle=reply.handle, offset=0, data=content[:half]).ok
        if self.chance.random() < 0.3:
            self.foreign()
        done = self.ask(session, Kind.WRITE, handle=reply.handle, offset=half, data=content[half:]).ok and done
        if self.chance.random() < 0.2:
            wished = Attributes(mtime=1_500_000_000 + self.number)
            self.ask(session, Kind.FSETSTAT, handle=reply.handle, attributes=wished)
        closed = self.ask(session, Kind.CLOSE, handle=reply.handle).ok
        if not closed:
            self.unsure.add(fold_path(path))
        elif done:
            self.acknowledged[content] = path
            if folder.startswith(OWN):
                self.own[fold_path(path)] = content

    def foreign(self) -> None:
        kind = self.chance.choice(("share_differently", "move_mount", "unmount", "mount", "others_write"))
        self.log.append(f"  meanwhile {kind}")
        getattr(self, kind)()

    def rename(self, source: str, target: str) -> bool:
        session = self.chance.choice(self.sessions)
        if self.chance.random() < 0.5:
            return self.ask(session, Kind.RENAME, path=source, target=target).ok
        return self.ask(session, Kind.EXTENDED, extension=Extension.POSIX_RENAME, path=source, target=target).ok

    def some_file(self) -> str | None:
        paths = [path for content, path in self.acknowledged.items() if fold_path(path) not in self.unsure]
        return self.chance.choice(paths) if paths else None

    def change_case(self) -> None:
        path = self.some_file()
        if path is not None:
            folder, _, name = path.rpartition("/")
            self.moved(path, f"{self.spelled(folder)}/{self.spelled(name)}")

    def move(self) -> None:
        path = self.some_file()
        if path is not None:
            self.number += 1
            self.moved(path, self.spelled(f"{self.chance.choice((OWN, OWN_BELOW, SHARED))}/M\u00f6ved{self.number}"))

    def moved(self, source: str, target: str) -> None:
        old, new = fold_path(source), fold_path(target)
        if self.rename(source, target):
            for content, path in self.acknowledged.items():
                if fold_path(path) == old:
                    self.acknowledged[content] = target
            content_of = self.own.pop(old, None)
            if content_of is not None and new.startswith(fold_path(OWN)):
                self.own[new] = content_of
        elif old != new:
            self.unsure |= {old, new}  # its outcome may not be known
            self.own.pop(old, None)

    def change_case_of_folder(self) -> None:
        folder = self.chance.choice((OWN, OWN_BELOW, SHARED))
        self.rename(self.spelled(folder), self.spelled(folder))

    def read(self) -> None:
        if not self.own:
            return
        path = self.chance.choice(list(self.own))
        session = self.chance.choice(self.sessions)
        reply = self.ask(session, Kind.OPEN, path=self.spelled(path), flags=R)
        if reply.kind != Kind.HANDLE:
            assert self.faulty, f"{path} cannot be read: {reply}"
            assert reply.code != Status.NO_SUCH_FILE, f"{path} is not there: {reply}"
            return
        found = self.ask(session, Kind.READ, handle=reply.handle, offset=0, size=200_000)
        if not (self.faulty and found.kind == Kind.STATUS):
            assert found.data == self.own[path], f"{path} has other content"
        assert self.ask(session, Kind.CLOSE, handle=reply.handle).ok

    def list_folder(self) -> None:
        folder = self.chance.choice((OWN, OWN_BELOW))
        session = self.chance.choice(self.sessions)
        reply = self.ask(session, Kind.OPENDIR, path=self.spelled(folder))
        if reply.kind != Kind.HANDLE:
            assert self.faulty, f"{folder} is not there"
            return
        names: list[str] = []
        while (batch := self.ask(session, Kind.READDIR, handle=reply.handle)).kind == Kind.NAME:
            names += [name for name, _, found in batch.names if found.permissions == 0o100644]
        self.ask(session, Kind.CLOSE, handle=reply.handle)
        if batch.code == Status.EOF:
            found_keys = sorted(fold_path(f"{folder}/{name}") for name in names)
            assert len(set(found_keys)) == len(found_keys), f"listed twice: {found_keys}"
            expected = {key for key in self.own if key.rpartition("/")[0] == fold_path(folder)}
            missing = expected - set(found_keys)
            assert not missing, f"{missing} is not listed"

    # -- others

    def hurry(self) -> None:
        self.journal.hurry("/")

    def wait(self) -> None:
        self.journal.hurry("/")
        self.journal.wait(lambda: not self.journal.is_live("/"), 0.2)

    def share_differently(self) -> None:
        access = self.chance.choice(("editor", "viewer", "viewer", None))
        with contextlib.suppress(Exception):  # it has none to be changed
            self.control.set_access(self.namespace, ANN, access)
            self.log.append(f"  Ann is {access}")

    def mounted(self) -> str | None:
        for path in (SHARED, "/Moved"):
            if self.control.exists(path):
                return path
        return None

    def move_mount(self) -> None:
        source = self.mounted()
        target = "/Moved" if source == SHARED else SHARED
        if source is not None and not self.control.exists(target):
            with contextlib.suppress(Exception):
                self.control.move(source, target)
                self.log.append(f"  {source} is {target}")
                self.note_taken_along()

    def note_taken_along(self) -> None:
        """Know what is stored and gone from its path before its delivery has heard of it: that may come once more."""
        for row in self.journal.all():
            with contextlib.suppress(OSError), self.journal.open(row) as file:  # OSError: heard of just then
                content = file.read()
                if self.places(content):
                    self.taken_along.add(content)

    def unmount(self) -> None:
        path = self.mounted()
        if path is not None and "sharing_info" in self.control.metadata(path):
            with contextlib.suppress(Exception):
                self.control.delete(path)
                self.log.append(f"  {path} is unmounted")

    def mount(self) -> None:
        with contextlib.suppress(Exception):
            self.control.share_folder_with_account("/Team", ANN, access="editor", account=BOB)
            self.log.append("  Ann is let in")

    def others_write(self) -> None:
        self.number += 1
        name = self.spelled(f"Th\u00e9irs{self.number}")
        with contextlib.suppress(Exception):
            self.control.write(f"/Team/{name}", b"theirs", account=BOB)

    def fault(self) -> None:
        if self.faulty:
            kind = self.chance.choice(FAULTS)
            route = self.chance.choice(("*", "files/upload_session/finish_batch_v2", "files/move_v2", "files/upload"))
            options: dict[str, Any] = {"retry_after": 0} if kind == "rate_limit" else {}
            self.control.fault(route, kind, count=self.chance.randrange(1, 4), **options)

    def restart(self) -> None:
        self.close()
        self.open()

    # -- the end

    def end(self) -> None:
        self.control.clear_faults()
        self.mount()
        self.journal.hurry("/")
        eventually(lambda: not self.journal.is_live("/"), lambda: f"not delivered: {self.journal.all()}")
        failed = []
        for row in self.journal.all():
            assert row.failed, row
            assert row.reason, f"{row} was refused without a reason"
            with self.journal.open(row) as file:
                failed.append(file.read())
        for content, path in self.acknowledged.items():
            copies = self.places(content)
            assert len(copies) <= 1 + (content in self.taken_along), f"{path} is at {copies}"
            assert copies or content in failed, f"{path} is nowhere: {content[:10]!r}"
        for key, content in self.own.items():
            where = self.places(content)
            assert [fold_path(path) for path in where] == [key] or content in failed, f"{key} is at {where}"

    def places(self, content: bytes) -> list[str]:
        """Return where a content is: by Ann's paths, else by Bob's."""
        found: list[str] = []
        for account in (ANN, BOB):
            for path, size in self.control.tree(account=account).items():
                if size == len(content) and self.control.read(path, account=account) == content:
                    found.append(path if account == ANN else f"Bob's {path}")
        is_ann = [path for path in found if not path.startswith("Bob's ")]
        return is_ann or found


def play(folder: Path, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do random steps; fail with all of them."""
    with monkeypatch.context() as patched:
        patched.setattr(delivery, "pause", lambda attempts: 0.02)
        world = Sharing(folder, seed)
        try:
            world.run(steps)
        except Exception as error:
            log = "\n".join(world.log[-150:])
            raise AssertionError(f"{log}\nseed {seed}: {type(error).__name__}: {error}") from error
        finally:
            world.close()
            world.emulator.stop()
