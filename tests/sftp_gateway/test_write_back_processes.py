"""Two processes with the same pending files: what one delivers, the other knows at once, whatever it knew before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fs
import pytest

from fs_dropbox.emulator import Emulator
from tests.waiting import eventually

from .write_back import WriteBack, get, put


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
