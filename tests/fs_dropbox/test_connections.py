"""Stored connections: private, atomic, found by name."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from fs_dropbox.login.connections import Connection, Connections, ConnectionsError, UnknownConnectionError, default_path

URL = "dropbox://key~secret:SECRET-TOKEN@/"


@pytest.fixture
def store(tmp_path: Path) -> Connections:
    return Connections(tmp_path / "fs-dropbox" / "connections.json")


def _default_name(store: Connections) -> str | None:
    connection = store.default()
    return None if connection is None else connection.name


def test_nothing_stored_is_no_error(store: Connections) -> None:
    assert store.all() == []
    assert store.default() is None
    with pytest.raises(UnknownConnectionError, match="fs-dropbox login"):
        store.find("any")


def test_what_is_put_is_found_again(store: Connections) -> None:
    ann = Connection("Dropbox (Ann Lee)", URL, account="Ann Lee", email="ann@example.com")
    store.put(ann)
    assert Connections(store.path).all() == [ann]
    assert store.default() == ann


def test_the_file_is_private_from_its_first_moment(store: Connections) -> None:
    before = os.umask(0)
    try:
        store.put(Connection("a", URL))
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(store: Connections, mode: int) -> None:
    store.put(Connection("a", URL))
    store.path.chmod(mode)
    for use in (store.all, store.default, lambda: store.put(Connection("b", URL))):
        with pytest.raises(ConnectionsError, match="chmod 600") as caught:
            use()
        assert "SECRET" not in str(caught.value)


def test_neither_repr_nor_errors_show_secrets(store: Connections) -> None:
    store.put(Connection("a", URL))
    assert "SECRET" not in repr(store.all())
    with pytest.raises(UnknownConnectionError) as caught:
        store.find("zzz")
    assert "SECRET" not in str(caught.value)


def test_names_are_found_in_any_case_and_by_an_unmistakable_beginning(store: Connections) -> None:
    for name in ("Work", "Dropbox (Ann)", "Dropbox (Ben)"):
        store.put(Connection(name, URL))
    assert store.find("work").name == "Work"
    assert store.find("dropbox (b").name == "Dropbox (Ben)"
    with pytest.raises(UnknownConnectionError, match="may mean 'Dropbox \\(Ann\\)', 'Dropbox \\(Ben\\)'"):
        store.find("Dropbox")
    with pytest.raises(UnknownConnectionError, match="there is no connection 'Wrok'; there is"):
        store.find("Wrok")


def test_the_last_one_stored_or_chosen_is_the_default(store: Connections) -> None:
    for name in ("a", "b", "c"):
        store.put(Connection(name, URL))
    assert _default_name(store) == "c"
    store.choose("a")
    assert _default_name(store) == "a"
    store.rename("a", "z")
    assert _default_name(store) == "z"
    store.remove("z")
    assert store.default() is None, "two are left, and none of them was chosen"
    store.remove("b")
    assert _default_name(store) == "c"


def test_removing_wants_the_exact_name(store: Connections) -> None:
    store.put(Connection("Dropbox (Ann)", URL))
    with pytest.raises(UnknownConnectionError, match="exactly"):
        store.remove("dropbox")
    assert len(store.all()) == 1


def test_renaming_takes_no_name_away(store: Connections) -> None:
    store.put(Connection("a", URL))
    store.put(Connection("b", "mem://"))
    with pytest.raises(ConnectionsError, match="already"):
        store.rename("a", "b")
    assert store.find("b").url == "mem://"


@pytest.mark.parametrize("name", ["", " a", "a ", "a:b", "a/b", "-a", "a\nb"])
def test_names_that_a_location_cannot_carry_are_refused(store: Connections, name: str) -> None:
    with pytest.raises(ConnectionsError):
        store.put(Connection(name, URL))
    assert store.all() == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 1, "last": "", "connections": {"a": {"link": ""}}}', "\xff\xfe"]
)
def test_a_damaged_file_is_one_clear_error(store: Connections, text: str) -> None:
    store.put(Connection("a", URL))
    store.path.write_text(text, encoding="latin-1")
    with pytest.raises(ConnectionsError, match="remove it and log in again"):
        store.all()


def test_a_file_of_a_later_version_is_left_alone(store: Connections) -> None:
    store.put(Connection("a", URL))
    store.path.write_text(json.dumps({"format": 2}))
    with pytest.raises(ConnectionsError, match="another version"):
        store.put(Connection("b", URL))
    assert json.loads(store.path.read_text()) == {"format": 2}


def test_a_change_that_fails_leaves_the_old_file(store: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(Connection("a", URL))
    before = store.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConnectionsError, match="No space left"):
        store.put(Connection("b", URL))
    assert store.path.read_bytes() == before
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["connections.json", "connections.lock"]


def test_processes_that_store_at_once_lose_nothing(store: Connections) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        # Only what the package defines is sent to them: they do not know where tests lie.
        for future in [pool.submit(store.put, Connection(f"c{number}", URL)) for number in range(12)]:
            future.result()
    assert len(store.all()) == 12


def test_where_connections_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_path() == tmp_path / "fs-dropbox" / "connections.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ann")
    assert default_path() == Path("/home/ann/.config/fs-dropbox/connections.json")
