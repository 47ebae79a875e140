"""Sessions that do things at random, compared with a plain model after each step, and with the storage in the end.

What fails prints its seed and all that its session did. The same seed does the same again, but for the threads' timing.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.sftp_gateway.sessions import random_steps
from tests.sftp_gateway.sessions.random_brawl import Brawler, Tree
from tests.sftp_gateway.sessions.random_choices import Choices
from tests.sftp_gateway.sessions.random_places import PLACES, Gateway
from tests.sftp_gateway.sessions.random_session import Actor

SHOWN_STEPS = 150

Session = TypeVar("Session", Actor, Brawler)


class Looker(threading.Thread):
    """A session that looks at everything all the time: what others know comes late, and must not count any more."""

    def __init__(self, place: Gateway, roots: Sequence[str], seed: int) -> None:
        super().__init__(daemon=True)
        self._raw = place.connect().raw()
        self._choices = [Choices(root, prefix="", seed=f"{seed} looker", folds=False) for root in roots]
        self._chance = random.Random(seed)
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(self._chance.choice((0.0, 0.001, 0.01))):
            choices = self._chance.choice(self._choices)
            folder = self._chance.choice(("", "", "/one", "/two", "/two/one", "/one/\u00fcber"))
            if self._chance.random() < 0.3:
                with contextlib.suppress(AssertionError):  # there is no such folder
                    self._raw.list(choices.root + folder)
            else:
                self._raw.wait(self._raw.stat(choices.root + folder + choices.some_key()))


def together(sessions: Sequence[Session], work: Callable[[Session], Any], seed: int) -> None:
    """Have each session do something, all at the same time; fail with what those did that failed."""
    failures: list[str] = []

    def guarded(number: int, session: Session) -> None:
        try:
            work(session)
        except Exception as error:  # noqa: BLE001 - whatever it is, its session and steps are told
            log = "\n".join(session.log[-SHOWN_STEPS:])
            failures.append(f"{log}\nseed {seed}, session {number}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=each) for each in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, "\n\n".join(failures)


def run(place: Gateway, seed: int, *, steps: int, rounds: int = 2, sessions: int = 2, shared: bool = False) -> None:
    """Have sessions do things at the same time, and compare; between two rounds the gateway starts anew."""
    roots = ["/shared"] * sessions if shared else [f"/s{number}" for number in range(sessions)]
    for root in dict.fromkeys(roots):
        place.make(root)
    actors = [
        Actor(place, root, prefix=f"{number}-" if shared else "", seed=f"{seed} {number}")
        for number, root in enumerate(roots)
    ]

    def each(work: Callable[[Actor], Any]) -> None:
        together(actors, work, seed)

    for number in range(rounds):
        if number:
            if not place.may_cut:
                each(Actor.close_all)
            place.restart()
            each(Actor.come_again)
            each(Actor.check_all)
        looker = Looker(place, list(dict.fromkeys(roots)), seed + number)
        looker.start()
        try:
            each(lambda actor: random_steps.run(actor, steps))
        finally:
            looker.is_over.set()
            looker.join()
        each(Actor.check_all)
    each(Actor.close_all)
    assert not place.settle(), "something was refused"
    each(lambda actor: check_stored(place, actor))


def check_stored(place: Gateway, actor: Actor) -> None:
    """Check that the storage has what the session's model has, and nothing else."""
    model, stored = actor.model, place.stored(actor.root)
    stored = {key: found for key, found in stored.items() if key.startswith(f"/{actor.prefix}")}
    expected = {key for key in (*model.files, *model.folders) if key != "/"}
    assert stored.keys() == expected, f"too much: {stored.keys() - expected}, missing: {expected - stored.keys()}"
    for key, file in model.files.items():
        found = stored[key]
        assert found is not None
        assert found[0] == file.content, f"{key} has {len(found[0])} other bytes"
        if file.time is not None and not file.is_loose:
            assert found[1] == file.time, f"{key} has the time {found[1]} instead of {file.time}"


@pytest.mark.parametrize(("kind", "steps"), [("memory", 150), ("folder", 100), ("dropbox", 40), ("write-back", 50)])
def test_sessions_see_what_they_did(tmp_path: Path, kind: str, steps: int) -> None:
    place = PLACES[kind](tmp_path)
    try:
        run(place, 1, steps=steps)
    finally:
        place.close()


def brawl(place: Gateway, seed: int, *, steps: int, rounds: int = 2, sessions: int = 3) -> None:
    """Have sessions change the same names at the same time; what all of them see then is what the storage has."""
    place.make("/arena")
    for number in range(rounds):
        brawlers = [Brawler(place, "/arena", f"{seed} {number} {session}") for session in range(sessions)]
        together(brawlers, lambda brawler: [brawler.step() for _ in range(steps)], seed)
        together(brawlers, Brawler.close_all, seed)
        seen, disagreement = look(brawlers)
        # Changes in place of what another has changed meanwhile are refused while all look, and no CLOSE tells of it.
        if place.settle():
            seen, disagreement = [], None
        if disagreement is not None:
            raise disagreement
        stored = {key: None if found is None else found[0] for key, found in place.stored("/arena").items()}
        for tree in [*seen, *(brawler.tree() for brawler in brawlers)]:
            assert tree == stored, f"seed {seed}: {shown(tree, stored)} is seen instead of {shown(stored, tree)}"


def look(brawlers: Sequence[Brawler]) -> tuple[list[Tree], AssertionError | None]:
    """Return what each session sees; or what one was told that cannot all be true, if nothing changed meanwhile."""
    try:
        return [brawler.tree() for brawler in brawlers], None
    except AssertionError as disagreement:
        return [], disagreement


def shown(tree: Tree, other: Tree) -> dict[str, int | None]:
    """Return what is only in the first of two trees, with sizes."""
    only = {path: content for path, content in tree.items() if path not in other or other[path] != content}
    return {path: None if content is None else len(content) for path, content in only.items()}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 104))
@pytest.mark.parametrize("kind", PLACES)
def test_many_sessions_see_what_they_did(tmp_path: Path, kind: str, seed: int) -> None:
    place = PLACES[kind](tmp_path)
    try:
        run(place, seed, steps=400, rounds=3, sessions=3, shared=bool(seed % 2))
    finally:
        place.close()


@pytest.mark.parametrize(("kind", "steps"), [("memory", 100), ("dropbox", 30), ("write-back", 30)])
def test_sessions_agree_about_what_they_all_changed(tmp_path: Path, kind: str, steps: int) -> None:
    place = PLACES[kind](tmp_path)
    try:
        brawl(place, 1, steps=steps)
    finally:
        place.close()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["memory", "folder", "dropbox", "write-back"])
def test_many_sessions_agree_about_what_they_all_changed(tmp_path: Path, kind: str) -> None:
    for seed in range(100, 120):
        (tmp_path / str(seed)).mkdir()
        place = PLACES[kind](tmp_path / str(seed))
        try:
            brawl(place, seed, steps=100)
        finally:
            place.close()
