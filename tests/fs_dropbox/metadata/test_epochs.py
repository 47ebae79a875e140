"""What is remembered of changes is bounded, and what is not remembered counts as changed."""

from __future__ import annotations

import pytest

from fs_dropbox.metadata import epochs
from fs_dropbox.metadata.epochs import Cuts, Epochs

KEPT = 20


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "KEYS_KEPT", KEPT)
    monkeypatch.setattr(epochs, "CUTS_KEPT", KEPT)


@pytest.mark.parametrize("is_own", [True, False])
@pytest.mark.parametrize("what", ["changed", "emptied", "both"])
def test_however_many_changes_none_is_taken_for_no_change(what: str, is_own: bool) -> None:
    known = Epochs()
    for number in range(10 * KEPT):
        key, before = f"/d{number}/f", known.now
        if what != "emptied":
            known.changed(key, is_own=is_own)
            assert known.is_stale(key, before)
            assert known.has_changed_below(f"/d{number}", before)
        if what != "changed":
            known.emptied(key, is_own=is_own)
        assert known.is_stale(f"{key}/below" if what == "emptied" else key, before)
        assert known.is_any_newer(f"{key}/x" if what == "emptied" else key, before, is_folder=False)
        assert known.is_own_newer(f"{key}/x" if what == "emptied" else key, before, is_folder=False) is is_own
        for notes in (known._all, known._own, known._told):
            assert len(notes.changed) + len(notes.emptied) <= KEPT
        assert len(known._recent) <= 2 * KEPT + 1
    assert known.is_stale("/d0/f", 1), "forgotten, and so older than some change"
    assert known.has_changed_below("/d0", 1)
    assert known.is_any_newer("/d0/f", 1, is_folder=False)
    assert not known.is_stale("/d0/f", known.now)
    assert not known.is_any_newer("/d0/f", known.now, is_folder=False)


def test_what_others_do_is_newer_than_no_own_change_and_the_reverse() -> None:
    known = Epochs()
    known.changed("/own", is_own=True)
    known.changed("/theirs", is_own=False)
    known.changed("/echo", is_own=False, is_news=False)
    assert [known.is_own_newer(key, 0, is_folder=False) for key in ("/own", "/theirs", "/echo")] == [True, False, False]
    assert [known.is_any_newer(key, 0, is_folder=False) for key in ("/own", "/theirs", "/echo")] == [True, True, False]
    assert all(known.is_stale(key, 0) for key in ("/own", "/theirs", "/echo"))


def test_what_comes_into_a_folder_speaks_against_a_file_in_its_place_alone() -> None:
    known = Epochs()
    known.came_below("/d/f", is_own=True)
    assert known.is_own_newer("/d", 0, is_folder=False)
    assert not known.is_own_newer("/d", 0, is_folder=True)
    assert not known.is_own_newer("/d", known.now, is_folder=False)
    known.emptied("/d", is_own=True)
    assert known.is_own_newer("/d/e/f", 0, is_folder=True)


def test_cuts_say_when_they_are_too_many() -> None:
    cuts = Cuts(most_folders=KEPT)
    for number in range(KEPT):
        assert cuts.occupy(f"/{number}")
        assert cuts.cut(f"/{number}", number + 1)
    assert cuts.cut("/never stored anything", 1), "which needs no place"
    assert cuts.occupy("/one more")
    assert not cuts.cut("/one more", 100)
    assert cuts.cut("/0", 100), "which has its place"
    assert not cuts.occupy("/too many")
    assert cuts.concern("/0/below", 99)
    assert not cuts.concern("/0/below", 100)
    assert not cuts.concern("/elsewhere", 0)
