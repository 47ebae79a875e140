"""Whose turn it is to change a path: one at a time, for a bounded time, and everybody else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from sftp_gateway.files.overlay import Overlay
from sftp_gateway.sftp.status import NotAtOnceError, RefusedError
from tests.waiting import DEADLINE_SECONDS, eventually

Enter = Callable[[Overlay], AbstractContextManager[Any]]


def changing(path: str, *others: str) -> Enter:
    return lambda overlay: overlay.turn(path, *others)


def renaming(path: str, *others: str) -> Enter:
    return lambda overlay: overlay.turn(path, *others, names=True)


def opening(path: str) -> Enter:
    return lambda overlay: overlay.opening(path)


def looking(path: str) -> Enter:
    @contextmanager
    def look(overlay: Overlay) -> Iterator[None]:
        overlay.wait_settled(path)
        yield

    return look


WAITS = [
    (changing("/a"), changing("/a")),
    (changing("/a"), changing("/A")),
    (changing("/a"), renaming("/b", "/a")),
    (changing("/d/f"), renaming("/d")),
    (renaming("/d"), changing("/d/f")),
    (changing("/a"), opening("/a")),
    (renaming("/d"), opening("/d/e/f")),
    (opening("/d/e/f"), renaming("/d")),
    (opening("/a"), renaming("/b", "/a")),
    (changing("/a"), looking("/a")),
    (renaming("/d"), looking("/d/f")),
]
GOES_ON = [
    (changing("/a"), changing("/b")),
    (changing("/a"), changing("/ab")),
    (renaming("/d"), opening("/dd/f")),
    (opening("/a"), opening("/a")),
    (opening("/a"), changing("/a")),  # only who changes names waits for what begins there
    (changing("/d/f"), opening("/d")),
    (opening("/a"), looking("/a")),
    (changing("/a"), looking("/b")),
]


@pytest.mark.parametrize(("first", "second"), WAITS)
def test_who_waits_does_so_for_a_bounded_time(first: Enter, second: Enter) -> None:
    overlay = Overlay(str.lower, wait_seconds=0.05)
    with first(overlay):
        refused: list[Exception] = []

        def wait() -> None:
            try:
                with second(overlay):
                    pass
            except RefusedError as error:
                refused.append(error)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive(), "it waits without end"
        assert refused, "it did not wait"
    with second(overlay):
        assert not refused[1:]


@pytest.mark.parametrize(("first", "second"), WAITS)
def test_who_waits_goes_on_at_once_when_the_turn_is_given_back(first: Enter, second: Enter) -> None:
    overlay = Overlay(str.lower, wait_seconds=DEADLINE_SECONDS)
    went_on = threading.Event()

    def wait() -> None:
        with second(overlay):
            went_on.set()

    thread = threading.Thread(target=wait)
    with first(overlay):
        thread.start()
        assert not went_on.wait(0.05)
    eventually(went_on.is_set, "it was not woken")
    thread.join()
    assert overlay.is_quiet
    assert overlay.is_settled("/a")


@pytest.mark.parametrize(("first", "second"), GOES_ON)
def test_others_go_on(first: Enter, second: Enter) -> None:
    overlay = Overlay(str.lower, wait_seconds=0.0)
    with first(overlay), second(overlay):
        assert overlay.is_settled("/elsewhere")


def test_who_does_not_want_to_wait_is_told() -> None:
    overlay = Overlay(str.lower, wait_seconds=DEADLINE_SECONDS)
    with overlay.turn("/a"):
        with pytest.raises(NotAtOnceError):
            overlay.opening("/a", wait=False)
        with overlay.opening("/b", wait=False):
            pass
        assert not overlay.is_settled("/A")
        assert not overlay.is_quiet
    with overlay.opening("/a", wait=False):
        pass
