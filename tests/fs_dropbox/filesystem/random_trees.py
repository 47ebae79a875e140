"""`Machine`: changes a folder of the account at random, through faults, and compares it with a plain model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import fs.errors
from fs.path import basename

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import ApiError
from tests.fs_dropbox.filesystem import tree_model
from tests.fs_dropbox.filesystem.tree_faults import LONGPOLL, SESSIONS, Watch, declare
from tests.fs_dropbox.filesystem.tree_judging import differences, is_unknown, judge, judge_items, judge_losses
from tests.fs_dropbox.filesystem.tree_model import below
from tests.fs_dropbox.filesystem.tree_operations import Operation, Operations
from tests.waiting import eventually

EMAIL: Final = "ann@example.com"
HOME: Final = "/Ann"
MARK_SECONDS: Final = 0.15
MARKS: Final = 200
THREADS: Final = 4
ERRORS: Final = (fs.errors.FSError, OSError)


class Machine(Operations):
    """Owns a folder of the account. For one thread.

    `follows`: the accounts hear of what others change, which happens then, late calls of their own among it. `stale`:
    others change things that the accounts know otherwise, and nobody tells them. `moves_house`: the account, which is
    in a team, leaves it and comes back, so that paths begin elsewhere.
    """

    def __init__(
        self,
        emulator: Emulator,
        watch: Watch,
        accounts: list[DropboxFS],
        folder: str,
        *,
        faults: bool,
        follows: bool = False,
        stale: bool = False,
        moves_house: bool = False,
    ) -> None:
        super().__init__(emulator.control, folder)
        self.watch = watch
        self.accounts = accounts
        self.faults = faults
        self.follows = follows
        self.stale = stale
        self.moves_house = moves_house
        self.has_moved = False
        self.log: list[str] = []
        self.late: tuple[Operation, str, set[str]] | None = None  # whose calls are to come, and how it has ended
        self.control.seed(folder)
        for _ in range(self.chance.choice((3, 8, 20))):
            self.foreign(self.note).call()
        for account in accounts:
            account.forget("/")
        self.catch_up()

    def run(self, steps: int, *, races: bool = False) -> None:
        """Do so many things; raises AssertionError with what was done."""
        step = self.race if races else self.step
        try:
            for _ in range(steps):
                step()
            self.carry_out_late()
            self.look(everything=True)
        except Exception as error:
            done = "\n".join(self.log[-40:])
            raise AssertionError(f"{self.folder}: {type(error).__name__}: {error}\nafter\n{done}") from error
        finally:
            self.watch.meanwhile.clear()
            self.control.clear_faults()

    def note(self, text: object) -> None:
        self.log.append(str(text))

    def step(self) -> None:
        roll = self.chance.random()
        if self.late is not None and roll < 0.5:
            self.carry_out_late()
        elif (self.follows and roll < 0.1) or (self.stale and roll < 0.3):
            self.foreign(self.note).call()
            self.catch_up()
        elif self.moves_house and roll < 0.2:
            self.move_house()
            self.catch_up()
        elif self.follows and roll < 0.12:
            self.note("cursors are reset")
            self.control.reset_cursors()
            self.catch_up()
        else:
            self.operate()
        if self.chance.random() < (0.1 if self.stale else 0.5):
            self.look(everything=self.stale or self.chance.random() < 0.5)

    def operate(self) -> None:
        """Have an account do something, perhaps while others do, too; and see whether it is as it says."""
        self.declare(may_be_late=self.follows and not self.moves_house and self.late is None)
        before = self.tree()
        op, account = self.choose(before), self.chance.choice(self.accounts)
        self.note(f"{self.accounts.index(account)} {op.text}")
        self.has_moved = False
        changes = self.meanwhile()
        struck = len(self.watch.struck)
        error: Exception | None = None
        results: Any = None
        try:
            results = op.call(account)
        except ERRORS as caught:
            error = caught
            self.note(f"  {error!r} {error}")
        self.watch.meanwhile.clear()
        after, strikes = self.tree(), self.watch.struck[struck:]
        self.note(f"  struck {strikes}")
        if self.stale or self.has_moved:
            judge_losses(op, before, after, error, changes, has_moved=self.has_moved)
        elif op.items:
            assert error is None, error
            judge_items(op, results, before, after, changes)
        else:
            judge(op, before, after, error, changes, is_struck=bool(strikes))
        late = {route for route, kind in strikes if kind == "late"}
        if late and self.under_way() > 0:
            errors = list(results.values()) if op.items and results else [error]
            ended = "done" if None in errors else "refused"
            if self.late is not None or any(each is not None and is_unknown(each) for each in errors):
                ended = "unknown"  # of several, nobody can tell whose it was
            self.late = op, ended, late
        if not (changes or self.stale or self.has_moved):
            with self.watch.quiet():
                self.compare(account, everything=self.chance.random() < 0.3)
        self.catch_up()

    def race(self) -> None:
        """Have several threads do things at once, in the same places; what is seen afterwards is what is there."""
        self.declare()
        tree = self.tree()
        work = [
            (self.chance.choice(self.accounts), [self.choose(tree) for _ in range(self.chance.choice((1, 2, 4)))])
            for _ in range(THREADS)
        ]
        self.note(f"at once: {[(self.accounts.index(account), [op.text for op in ops]) for account, ops in work]}")

        def run(account: DropboxFS, ops: list[Operation]) -> None:
            for op in ops:
                with suppress(*ERRORS):
                    op.call(account)

        with ThreadPoolExecutor(THREADS + 1) as pool:
            others = [pool.submit(self.foreign(self.note).call)] if self.follows else []
            for each in [*[pool.submit(run, *each) for each in work], *others]:
                each.result()
        self.catch_up()
        self.look(everything=True)

    def declare(self, *, may_be_late: bool = False) -> None:
        if self.faults and self.chance.random() < 0.5:
            self.note(declare(self.control, self.chance, may_be_late=may_be_late))

    # What happens besides

    def meanwhile(self) -> list[Callable[[tree_model.Tree], None]]:
        """Let something happen in the middle of what comes next; return a list that holds what others have done."""
        done: list[Callable[[tree_model.Tree], None]] = []
        if self.chance.random() < 0.8:
            return done
        calls = self.chance.randrange(4)
        if self.moves_house:
            self.watch.meanwhile.append((calls, self.move_house))
        elif self.follows and self.late is None and self.chance.random() < 0.4:
            self.watch.meanwhile.append((calls, self.end_late))
        elif self.follows or self.stale:
            change = self.foreign(lambda text: (self.note(text), done.append(change.apply)))
            self.watch.meanwhile.append((calls, change.call))
        return done

    def move_house(self) -> None:
        """Give the account another root: all that it has is at other paths then."""
        self.note("another root")
        self.has_moved = True
        if self.folder.startswith(HOME):
            self.control.remove_member(EMAIL)
            self.folder = self.folder.removeprefix(HOME)
        else:
            self.control.add_member(EMAIL, admin=True)
            self.folder = HOME + self.folder

    def come_home(self) -> None:
        """Give the account the root that it had at first."""
        if not self.folder.startswith(HOME):
            self.move_house()

    def under_way(self) -> int:
        """Return how many calls are, but for longpolls."""
        return self.control.under_way() - self.control.under_way(LONGPOLL)

    def end_late(self) -> None:
        """Have lost calls carried out now, in the middle of an operation, before its next call."""
        if self.under_way() > 1:
            self.note("  lost calls are carried out")
        self.control.release()
        eventually(lambda: self.under_way() <= 1)

    def carry_out_late(self) -> None:
        """Have lost calls carried out after those who made them have gone on."""
        if self.late is None:
            return
        (op, ended, routes), self.late = self.late, None
        before = self.tree()
        self.control.release()
        eventually(lambda: self.under_way() <= 0)
        after = self.tree()
        self.note(f"carried out late: {op.text}, which was {ended}: {routes} {differences(before, after)}")
        if before != after:
            assert ended != "refused", "what was told not to be done was done later"
            # What else may be done again, by later changes, docs/semantics.md says (section 9).
            assert ended == "unknown" or not (op.is_update or routes <= SESSIONS), "what was done was done again later"
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until the accounts have heard of what has happened, if they ever do."""
        for account in self.accounts if self.follows else []:
            seen: set[str] = set()
            end = account.subscribe(lambda entries, seen=seen: seen.update(entry.path_lower for entry in entries))  # type: ignore[misc]
            marks = (self.mark(account, seen) for _ in range(MARKS))  # some are lost, with a cursor that is reset
            assert any(marks), f"the feed is down: {account.feed_problem}"
            end()

    def mark(self, account: DropboxFS, seen: set[str]) -> bool:
        """Leave a mark in the account, and tell whether it is seen."""
        self.written += 1
        mark = f"/mark {self.folder[1:]} {self.written}".lower()
        self.control.write(mark, b"")
        if self.moves_house:  # a call learns of another root; what is cached costs none
            with suppress(ApiError), self.watch.quiet():
                account._parts.client.get_metadata(mark)
        with suppress(AssertionError):
            eventually(lambda: mark in seen, seconds=MARK_SECONDS)
        self.control.delete(mark)
        return mark in seen

    # What is seen

    def look(self, *, everything: bool) -> None:
        """Compare what all accounts see with what is there."""
        with self.watch.quiet():
            for account in self.accounts:
                if self.stale:
                    account.forget("/")
                self.compare(account, everything=everything)

    def compare(self, account: DropboxFS, *, everything: bool) -> None:
        tree, base = self.tree(), self.folder
        some = list(tree) if everything else self.chance.sample(list(tree), min(3, len(tree)))
        for key in {*some, *(self.path(tree, there=0.3).lower() for _ in range(4))}:
            path, content = base + key, tree.get(key)
            assert account.exists(path) == (key in tree), f"exists {key}"
            assert account.isdir(path) == (key in tree and content is None), f"isdir {key}"
            if content is not None:
                info = account.getinfo(path, ["details", "dropbox"])
                assert (info.size, info.get("dropbox", "rev")) == (len(content), self.rev(key)), f"info of {key}"
        for key in ["", *(key for key in some if tree[key] is None)]:
            expected = sorted(basename(each) for each in below(tree, key) if tree_model.parent(each) == key)
            assert sorted(name.lower() for name in account.listdir(base + key)) == expected, f"listing of {key}"
        if everything:
            files = {key: content for key, content in tree.items() if content is not None}
            assert sorted(path[len(base) :].lower() for path in account.walk.files(base)) == sorted(files), "walk"
            for key, content in files.items():
                if self.chance.random() < 0.2:
                    assert account.readbytes(base + key) == content, f"content of {key}"
