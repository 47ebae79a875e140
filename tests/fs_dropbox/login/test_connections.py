"""Stored connections: private, atomic, found by name."""

from __future__ import annotations

import fcntl
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
    assert stat.S_IMODE(store.path.with_suffix(".lock").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(store: Connections, mode: int) -> None:
    store.put(Connection("a", URL))
    store.path.chmod(mode)
    for use in (store.all, store.default, lambda: store.put(Connection("b", URL))):
        with pytest.raises(ConnectionsError, match="chmod 600") as caught:
            use()
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(("owner", "is_used"), [(0, True), (os.geteuid(), True), (4711, False)])
def test_a_file_of_somebody_else_is_not_used(
    store: Connections, monkeypatch: pytest.MonkeyPatch, owner: int, is_used: bool
) -> None:
    store.put(Connection("a", URL))
    fstat = os.fstat

    def owned(descriptor: int) -> os.stat_result:
        fields = list(fstat(descriptor))
        fields[stat.ST_UID] = owner
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", owned)
    if not owner:
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    if is_used:
        assert store.find("a").url == URL
    else:
        with pytest.raises(ConnectionsError, match="belongs to another user"):
            store.find("a")


def test_a_file_that_cannot_be_read_or_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir(mode=0o700)
    with pytest.raises(ConnectionsError, match=r"folder\.json cannot be read: Is a directory"):
        Connections(tmp_path / "folder.json").all()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConnectionsError, match=r"connections\.json cannot be written: File exists"):
        Connections(tmp_path / "file" / "connections.json").put(Connection("a", URL))


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


def test_an_exact_name_comes_before_others_that_are_like_it(store: Connections) -> None:
    for name in ("Work", "work", "Work at home", "Dropbox"):
        store.put(Connection(name, URL))
    assert [store.find(name).name for name in ("Work", "work")] == ["Work", "work"]
    assert store.find("dropbox").name == "Dropbox"
    store.put(Connection("Dropbox (Ann)", URL))
    assert store.find("dropbox").name == "Dropbox"
    with pytest.raises(UnknownConnectionError, match="there is no connection 'ork'"):
        store.find("ork")


def test_connections_are_listed_as_in_a_dictionary(store: Connections) -> None:
    for name in ("b", "C", "a"):
        store.put(Connection(name, URL))
    assert [connection.name for connection in store.all()] == ["a", "b", "C"]


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
    store.rename("b", "z")
    assert store.default() is None, "a new one of the old name was not chosen either"
    store.remove("z")
    assert _default_name(store) == "c"


def test_one_is_chosen_by_any_name_that_finds_it(store: Connections) -> None:
    for name in ("Work", "Home"):
        store.put(Connection(name, URL))
    assert store.choose("wo").name == "Work"
    assert _default_name(store) == "Work"


def test_removing_wants_the_exact_name(store: Connections) -> None:
    store.put(Connection("Dropbox (Ann)", URL))
    with pytest.raises(UnknownConnectionError, match=r"whole name .*'Dropbox \(Ann\)'"):
        store.remove("dropbox")
    assert len(store.all()) == 1


def test_renaming_takes_no_name_away(store: Connections) -> None:
    store.put(Connection("a", URL))
    store.put(Connection("b", "mem://"))
    with pytest.raises(ConnectionsError, match="already"):
        store.rename("a", "b")
    assert store.find("b").url == "mem://"


def test_renaming_to_the_same_name_and_to_one_that_no_location_carries(store: Connections) -> None:
    store.put(Connection("a", URL))
    assert store.rename("a", "a") == store.find("a")
    with pytest.raises(ConnectionsError, match="no colon"):
        store.rename("a", "b:c")
    assert [connection.name for connection in store.all()] == ["a"]


@pytest.mark.parametrize("name", ["", " ", " a", "a ", "a:b", "a/b", "-a", "a\nb"])
def test_names_that_a_location_cannot_carry_are_refused(store: Connections, name: str) -> None:
    with pytest.raises(ConnectionsError):
        store.put(Connection(name, URL))
    assert store.all() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 1, "last": "", "connections": {"a": {"link": ""}}}',
        '{"format": 1, "connections": []}',
        "\xff\xfe",
    ],
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


def test_what_changes_meanwhile_is_kept(store: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(Connection("a", URL))
    flock, others = fcntl.flock, [Connection("a", "dropbox://newer@/"), Connection("b", URL)]

    def late(descriptor: int, operation: int) -> None:
        while others:
            store.put(others.pop())
        flock(descriptor, operation)
        with open(store.path.with_suffix(".lock")) as lock, pytest.raises(BlockingIOError):
            flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(fcntl, "flock", late)
    store.rename("a", "z")
    assert {connection.name: connection.url for connection in store.all()} == {"b": URL, "z": "dropbox://newer@/"}


def test_where_connections_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_path() == tmp_path / "fs-dropbox" / "connections.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ann")
    assert default_path() == Path("/home/ann/.config/fs-dropbox/connections.json")
