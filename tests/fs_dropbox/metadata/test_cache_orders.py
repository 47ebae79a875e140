"""The cache under every order of things: answers from before come after, changes of others come in between.

A server in memory keeps every state it ever had. Own calls, requests and looks at the journal begin, are carried out
and end in any order. Two promises are looked at after each step: what own calls have changed is never denied once they
have ended; and once the journal was read to its end, everything that is known is so.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import pytest

from fs_dropbox import paths
from fs_dropbox.api.client import Client
from fs_dropbox.entries import Entry, FileEntry, FolderEntry
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.metadata.catalog import Catalog
from tests.fs_dropbox.metadata.server_states import DEPTH, RefusedError, Server, State

NAMES = ("a", "b", "ä")
PATHS = tuple(
    "/" + "/".join(names) for depth in range(1, DEPTH + 1) for names in itertools.product(NAMES, repeat=depth)
)
MOST_UNDER_WAY = 4
STEPS = 60

T = TypeVar("T")

TakeOver: TypeAlias = Callable[[Any, int], object]
Fact: TypeAlias = str  # "absent", "folder", or the rev of a file


def fact(known: object) -> Fact:
    if isinstance(known, FileEntry):
        return known.rev
    return "folder" if isinstance(known, FolderEntry) else "absent"


@dataclass(eq=False)
class Call:
    """An own call: what it does at the server, how its answer is taken over, and which paths it says something of."""

    name: str
    since: int
    work: Callable[[], Any]
    take_over: TakeOver
    paths: tuple[str, ...]
    settles: Callable[[str], bool]
    done_at: int | None = None
    answer: Any = None
    is_refused: bool = False


@dataclass(eq=False)
class Request:
    """A question, and what stores its answer once the server has given it."""

    name: str
    epoch: int
    work: Callable[[State], Callable[[int], object]]
    store: Callable[[int], object] | None = None


@dataclass
class Look:
    """A look at the journal: pages that were told, each with whether there are more."""

    since: int
    pages: list[tuple[list[Entry], bool]] = field(default_factory=list)


class Story:
    """Everything that may happen, one step after the other, as a seed has it."""

    def __init__(self, seed: int, *, is_followed: bool) -> None:
        self.chance = random.Random(seed)
        self.steps: list[str] = []
        self.is_followed = is_followed
        self.server = Server()
        self.time = 0.0
        self.cache = MetadataCache(now=lambda: self.time)
        self.catalog = Catalog(cast(Client, None), self.cache)
        self.calls: list[Call] = []
        self.requests: list[Request] = []
        self.look: Look | None = None
        self.cursor = 0
        self.new_cursor: int | None = None
        self.settled: list[tuple[int, Callable[[str], bool]]] = []
        # Few paths: what happens has to do with each other.
        drawn = self.chance.sample(PATHS, 4)
        self.paths = sorted({key for path in drawn for key in (path, *paths.ancestors(path))})
        if is_followed:
            self.cache.follow()
            self.cache.trust(True)

    def step(self) -> None:
        """Let something happen that can happen now."""
        chance, path, other = self.chance, self.chance.choice(self.paths), self.chance.choice(self.paths)
        flags = chance.random() < 0.5, chance.random() < 0.5, chance.random() < 0.15
        number = chance.randrange(1, 9)
        kind = chance.choice(["write", "write", "make", "make", "delete", "delete", "copy", "move"])
        ask = chance.choice(["entry", "listing", "tree"])
        begun, done = self._split(self.calls, lambda call: call.done_at is not None)
        asked, answered = self._split(self.requests, lambda request: request.store is not None)
        possible: list[tuple[str, Callable[[], object]]] = [
            (f"foreign {kind} {path} {other}", lambda: self.foreign(kind, path, other, flags[0])),
            (f"page {number}", lambda: self.page(number)),
            ("loss", chance.choice([self.reset, self.grow_old, self.drop_something])),
        ]
        if len(self.calls) < MOST_UNDER_WAY:
            possible += 2 * [(f"call {kind} {path} {other} {flags}", lambda: self.call(kind, path, other, *flags[:2]))]
        if len(self.requests) < MOST_UNDER_WAY:
            possible += 3 * [(f"ask {ask} {path} {flags[0]}", lambda: self.ask(ask, path, flags[0]))]
        possible += [(f"carry out {call.name}", partial(self.carry_out, call)) for call in begun]
        possible += [(f"end {call.name} lost={flags[2]}", partial(self.end, call, flags[2])) for call in done]
        possible += [(f"answer {request.name}", partial(self.answer, request)) for request in asked]
        possible += [(f"arrive {request.name}", partial(self.arrive, request)) for request in answered]
        if self.look is not None and self.look.pages:
            possible += 2 * [("hear", self.hear)]
        what, work = chance.choice(possible)
        self.steps.append(what)
        work()

    def _split(self, under_way: list[T], is_second: Callable[[T], bool]) -> tuple[list[T], list[T]]:
        return [each for each in under_way if not is_second(each)], [each for each in under_way if is_second(each)]

    # Own calls: they begin, are carried out, and end

    def call(self, kind: str, path: str, other: str, is_done: bool, is_over: bool) -> None:
        server, catalog = self.server, self.catalog
        since = self.cache.epoch()
        name = f"{kind} {path}"
        if kind in ("write", "make"):
            work = partial(getattr(server, kind), path)
            take_over: TakeOver = catalog.applied if kind == "write" else catalog.created
            call = Call(name, since, work, take_over, (path,), about(path, above=True))
        elif kind == "delete":
            call = Call(
                name, since, partial(server.delete, path), lambda _, at: catalog.removed(path, at), (path,), about(path)
            )
        elif kind == "copy":
            work = partial(server.copy, path, other)
            call = Call(f"{name} {other}", since, work, catalog.copied, (other,), about(other, above=True))
        else:
            work = partial(server.move, path, other)
            old, new = about(path), about(other, above=True)
            call = Call(
                f"{name} {other}",
                since,
                work,
                lambda entry, at: catalog.moved(path, entry, at),
                (path, other),
                lambda key: old(key) or new(key),
            )
        self.calls.append(call)
        if is_done:
            self.carry_out(call)
            if is_over:
                self.end(call, is_lost=False)

    def carry_out(self, call: Call) -> None:
        try:
            call.answer = call.work()
        except RefusedError:
            call.is_refused = True
        call.done_at = len(self.server.states) - 1

    def end(self, call: Call, is_lost: bool) -> None:
        self.calls.remove(call)
        if is_lost or call.is_refused:
            for path in call.paths:
                self.catalog.forget(path)
        else:
            assert call.done_at is not None
            call.take_over(call.answer, call.since)
            self.settled.append((call.done_at, call.settles))

    # Requests

    def ask(self, kind: str, path: str, is_answered: bool) -> None:
        ask = {"entry": self._entry, "listing": self._listing, "tree": self._tree}[kind]
        request = Request(f"{kind} {path}", self.cache.epoch(), lambda state: ask(state, path))
        self.requests.append(request)
        if is_answered:
            self.answer(request)

    def answer(self, request: Request) -> None:
        request.store = request.work(self.server.now)

    def arrive(self, request: Request) -> None:
        self.requests.remove(request)
        assert request.store is not None
        request.store(request.epoch)

    def _entry(self, state: State, path: str) -> Callable[[int], object]:
        entry = state.get(path)
        if entry is None:
            return lambda epoch: self.cache.put_absent(path, epoch)
        return lambda epoch: self.cache.put(entry, epoch)

    def _listing(self, state: State, path: str) -> Callable[[int], object]:
        if path and not isinstance(state.get(path), FolderEntry):
            return lambda _: None
        children = [entry for key, entry in state.items() if paths.parent(key) == path]
        return lambda epoch: self.cache.put_listing(path, children, epoch)

    def _tree(self, state: State, path: str) -> Callable[[int], object]:
        if path and not isinstance(state.get(path), FolderEntry):
            return lambda _: None
        folders = [
            path,
            *(k for k, e in state.items() if isinstance(e, FolderEntry) and k != path and paths.is_under(k, path)),
        ]
        stores = [self._listing(state, folder) for folder in folders]
        return lambda epoch: [store(epoch) for store in stores]

    # The feed, and others

    def foreign(self, kind: str, path: str, other: str, lists_children: bool) -> None:
        self.server.lists_children = lists_children
        with suppress(RefusedError):
            if kind in ("copy", "move"):
                getattr(self.server, kind)(path, other)
            else:
                getattr(self.server, kind)(path)

    def page(self, entries: int) -> None:
        """Ask the journal for some more; the first of these pages is what a look begins with."""
        if self.new_cursor is not None:
            return  # the feed is about to begin anew
        if self.look is None:
            self.look = Look(self.cache.epoch())
        elif self.look.pages and not self.look.pages[-1][1]:
            return  # it has ended
        told, self.cursor = self.server.page(self.cursor, entries)
        self.look.pages.append((told, self.cursor < len(self.server.journal)))

    def hear(self) -> None:
        """Take over the next page."""
        if self.look is not None and self.look.pages:
            told, has_more = self.look.pages.pop(0)
            if self.is_followed:
                self.cache.hear(told, self.look.since, has_more=has_more)
            if not has_more:
                self.look = None

    # Loss of what is known

    def reset(self) -> None:
        """Have the feed take another cursor, or begin with that."""
        if self.new_cursor is None:
            self.new_cursor, self.look = len(self.server.journal), None
            return
        self.cursor, self.new_cursor = self.new_cursor, None
        self.cache.clear()
        if self.is_followed:
            self.cache.follow()

    def grow_old(self) -> None:
        self.time += 1000.0
        self.cache.trust(self.is_followed)

    def drop_something(self) -> None:
        """Do as the cache does when it is full."""
        for table in (self.cache._slots, self.cache._listings):
            with suppress(KeyError):
                table.popitem()

    # What is promised

    def own_changes_are_not_denied(self) -> None:
        for key, known in self.known():
            since = max((done_at for done_at, settles in self.settled if settles(key)), default=0)
            seen = {fact(state.get(key)) for state in self.server.states[since:]}
            assert known in seen, f"{key!r} is {known}, and has been {seen} since an own change at {since}"

    def known(self) -> Iterator[tuple[str, Fact]]:
        """Yield all that the cache says of any path."""
        for key in PATHS:
            known = self.cache.get(key)
            if known is not None:
                yield key, fact(known)
        for folder in ("", *PATHS):
            children = self.cache.listing(folder)
            if children is None:
                continue
            found = {entry.path_lower: fact(entry) for entry in children}
            yield from found.items()
            # A listing says what is not there, too.
            yield from ((key, "absent") for key in PATHS if paths.parent(key) == folder and key not in found)

    def finish(self) -> None:
        """Let everything end, and the journal be read: then all that is known is so."""
        for call in list(self.calls):
            if call.done_at is None:
                self.carry_out(call)
            self.end(call, is_lost=False)
            self.own_changes_are_not_denied()
        for request in list(self.requests):
            if request.store is None:
                self.answer(request)
            self.arrive(request)
            self.own_changes_are_not_denied()
        if self.new_cursor is not None:
            self.reset()
        while self.look is not None or self.cursor < len(self.server.journal):
            self.page(len(self.server.journal))
            self.hear()
        for key, known in self.known() if self.is_followed else ():
            assert known == fact(self.server.now.get(key)), f"{key!r} is {known} for ever"


def about(path: str, *, above: bool = False) -> Callable[[str], bool]:
    """Return which keys a change of a path says something of: itself, what is below, and that what is above exists."""
    return lambda key: paths.is_under(key, path) or (above and paths.is_under(path, key))


def tell(seed: int, *, is_followed: bool) -> None:
    """Play one story; one that goes wrong is told."""
    story = Story(seed, is_followed=is_followed)
    try:
        for _ in range(STEPS):
            story.step()
            story.own_changes_are_not_denied()
        story.finish()
    except AssertionError as error:
        steps = "\n".join(story.steps)
        raise AssertionError(f"seed {seed}, followed: {is_followed}\n{steps}\n{error}") from None


@pytest.mark.parametrize("is_followed", [True, False])
def test_no_order_of_things_denies_an_own_change(is_followed: bool) -> None:
    for seed in range(120):
        tell(seed, is_followed=is_followed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("is_followed", [True, False])
def test_no_order_of_things_denies_an_own_change_for_long(is_followed: bool) -> None:
    for seed in range(1000, 20_000):
        tell(seed, is_followed=is_followed)
