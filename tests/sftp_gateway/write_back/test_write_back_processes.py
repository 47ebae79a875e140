"""Two processes with the same pending files: what one delivers, the other knows at once, whatever it knew before."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fs
import pytest

from fs_dropbox.emulator import Emulator
from sftp_gateway.write_back.journal_rows import Pending
from tests.sftp_gateway.write_back.remote_fs import WriteBack, get, put
from tests.waiting import eventually


@pytest.fixture
def processes(emulator: Emulator, tmp_path: Path) -> Iterator[tuple[WriteBack, WriteBack]]:
    """Two instances behave as two processes do: each knows of Dropbox what it has asked for, and nobody tells it more.

    The first delivers.
    """
    with ExitStack() as stack:

        def begin() -> WriteBack:
            dropbox = stack.enter_context(fs.open_fs(emulator.fs_url + "&change_feed=off"))
            serving = WriteBack(dropbox, tmp_path, delay_seconds=60.0)
            stack.callback(serving.close)
            return serving

        first = begin()
        eventually(lambda: first.written_back._delivery.is_mine, "nobody delivers")
        yield first, begin()


def delivered(serving: WriteBack) -> None:
    serving.journal.hurry()
    serving.settled()


def test_what_was_shown_while_it_was_pending_stays(processes: tuple[WriteBack, WriteBack]) -> None:
    first, second = (serving.client() for serving in processes)
    assert second.listdir("/") == [], "what it knows of Dropbox"
    put(first, "/f", b"content")
    first.mkdir("/d")
    assert sorted(second.listdir("/")) == ["d", "f"]
    delivered(processes[0])
    assert sorted(second.listdir("/")) == ["d", "f"]
    assert get(second, "/f") == b"content"


def test_what_was_never_looked_at_while_it_was_pending_is_known(processes: tuple[WriteBack, WriteBack]) -> None:
    first, second = (serving.client() for serving in processes)
    assert second.listdir("/") == [], "what it knows of Dropbox"
    put(first, "/f", b"content")
    first.mkdir("/d")
    delivered(processes[0])
    assert get(second, "/f") == b"content"
    assert stat.S_ISDIR(second.stat("/d").st_mode or 0)
    assert sorted(second.listdir("/")) == ["d", "f"]
    put(first, "/f", b"another content")
    delivered(processes[0])
    assert second.listdir_attr("/")[1].st_size == len(b"another content")


@pytest.mark.parametrize("spellings", [("/caf\u00e9", "/cafe\u0301"), ("/cafe\u0301", "/CAF\u00c9")])
def test_it_is_known_under_every_spelling(processes: tuple[WriteBack, WriteBack], spellings: tuple[str, str]) -> None:
    first, second = (serving.client() for serving in processes)
    for path in (*spellings, "/"):
        with contextlib.suppress(FileNotFoundError):
            second.stat(path)
    assert second.listdir("/") == []
    put(first, spellings[0], b"content")
    delivered(processes[0])
    assert get(second, spellings[1]) == b"content"


def test_what_is_delivered_while_it_is_asked_for_is_known(
    processes: tuple[WriteBack, WriteBack], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (serving.client() for serving in processes)
    assert second.listdir("/") == []
    put(first, "/f", b"content")
    find = processes[1].journal.find

    def find_late(path: str) -> Pending | None:
        monkeypatch.setattr(processes[1].journal, "find", find)
        delivered(processes[0])
        return find(path)

    monkeypatch.setattr(processes[1].journal, "find", find_late)
    assert second.stat("/f").st_size == len(b"content")


def test_below_a_directory_that_was_delivered_nothing_is_believed_to_be_missing(
    processes: tuple[WriteBack, WriteBack],
) -> None:
    first, second = (serving.client() for serving in processes)
    assert second.listdir("/") == []
    first.mkdir("/d")
    delivered(processes[0])
    put(processes[0].client(write_back=False), "/d/f", b"content")
    assert get(second, "/d/f") == b"content"


def test_what_a_process_delivers_itself_it_need_not_ask_for(
    processes: tuple[WriteBack, WriteBack], emulator: Emulator
) -> None:
    first = processes[0].client()
    assert first.listdir("/") == []
    put(first, "/f", b"content")
    delivered(processes[0])
    before = emulator.control.calls()
    assert first.stat("/f").st_size == len(b"content")
    assert first.listdir("/") == ["f"]
    assert emulator.control.calls() == before


def test_a_directory_that_was_made_by_the_one_that_does_not_deliver_is_known(
    processes: tuple[WriteBack, WriteBack],
) -> None:
    first, second = (serving.client() for serving in processes)
    first.mkdir("/d")
    assert first.listdir("/") == ["d"]
    put(processes[1].client(write_back=False), "/f", b"content")
    second.posix_rename("/f", "/d/f")
    assert not processes[0].journal.directories.all(), "not made by what needs it"
    assert first.listdir("/d") == ["f"]
    assert "d" in first.listdir("/")


def test_a_pending_file_is_renamed_into_a_directory_that_another_process_has_delivered(
    processes: tuple[WriteBack, WriteBack],
) -> None:
    first, second = (serving.client() for serving in processes)
    assert second.listdir("/") == []
    first.mkdir("/d")
    delivered(processes[0])
    put(second, "/f", b"content")
    second.rename("/f", "/d/f")
    assert get(first, "/d/f") == b"content"


def test_what_another_process_delivers_costs_nothing_where_nobody_asks_for_it(
    processes: tuple[WriteBack, WriteBack], emulator: Emulator
) -> None:
    """Not the knowledge of its directory: of the other files in it nothing is asked anew."""
    first, second = (serving.client() for serving in processes)
    put(first, "/old", b"content")
    delivered(processes[0])
    assert second.listdir("/") == ["old"]
    put(first, "/new", b"content")
    delivered(processes[0])
    before = emulator.control.calls()
    for _ in range(3):
        assert second.stat("/old").st_size == len(b"content")
        with pytest.raises(FileNotFoundError):
            second.stat("/missing")
    assert emulator.control.calls() == before


@pytest.mark.parametrize("asked", [False, True])
def test_of_too_much_to_keep_nothing_is_missed(
    processes: tuple[WriteBack, WriteBack], monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Neither by a process that is asked for none of it, nor by one that has looked at the journal long ago."""
    monkeypatch.setattr("sftp_gateway.write_back.arrivals.KEPT", 3)
    monkeypatch.setattr("sftp_gateway.write_back.elsewhere.KEPT", 3)
    first, second = (serving.client() for serving in processes)
    assert second.listdir("/") == []
    for number in range(9):
        put(first, f"/{number}", bytes(number))
        delivered(processes[0])
        if asked:
            with pytest.raises(FileNotFoundError):
                second.stat("/missing")
    assert len(processes[1].journal.arrivals.since(0)) == 3
    assert [second.stat(f"/{number}").st_size for number in range(9)] == list(range(9))


def test_a_directory_that_another_process_has_removed_is_made_again(
    processes: tuple[WriteBack, WriteBack], emulator: Emulator
) -> None:
    """Whatever the one that delivers believes."""
    first, second = processes
    client = second.client()
    client.mkdir("/d")
    delivered(second)
    assert first.client().listdir("/") == ["d"]
    client.rmdir("/d")
    client.mkdir("/d")
    delivered(second)
    assert emulator.control.tree() == {"/d": None}


def test_what_is_above_a_path_that_was_asked_for_is_known_once_it_is_delivered(
    processes: tuple[WriteBack, WriteBack],
) -> None:
    """It was pending when that was asked for."""
    _, second = processes
    client = second.client()
    assert client.listdir("/") == []
    put(client, "/f", b"content")
    client.mkdir("/d")
    for path in ("/f/below", "/d/below", *(f"/{number}" for number in range(6))):  # it knows the folder after these
        with pytest.raises(FileNotFoundError):
            client.stat(path)
    delivered(second)
    assert get(client, "/f") == b"content"
    put(client, "/d/below", b"content")


@pytest.mark.parametrize("replaces", [False, True])
def test_what_arrives_while_it_is_renamed_is_renamed_in_the_storage(
    processes: tuple[WriteBack, WriteBack],
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    replaces: bool,
) -> None:
    _, second = processes
    client = second.client()
    assert client.listdir("/") == []
    put(client, "/f", b"content")
    as_it_is = second.journal.rename

    def late(*arguments: Any, **options: Any) -> Any:
        delivered(second)
        return as_it_is(*arguments, **options)

    monkeypatch.setattr(second.journal, "rename", late)
    (client.posix_rename if replaces else client.rename)("/f", "/g")
    assert client.listdir("/") == ["g"]
    assert emulator.control.tree() == {"/g": 7}
