"""A file may be larger than the gateway's room for unfinished uploads: what the storage has is not kept as well."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from fs import errors

from fs_dropbox.emulator import Emulator
from sftp_gateway.files import partials, spool
from sftp_gateway.files.draft import Draft
from sftp_gateway.files.holes import punch
from sftp_gateway.files.tree import TreeLimits
from sftp_gateway.requests import replies
from tests.sftp_gateway.conftest import ServeDropbox
from tests.sftp_gateway.files.short_of_room.telling_fs import (
    CONTENT,
    MIB,
    ONLY_FORWARD,
    PIECE,
    QUOTA,
    TellingFS,
    on_disk,
    send,
    thinned,
)
from tests.sftp_gateway.raw_client import C, R, T, W, a
from tests.sftp_gateway.without_doors import Serving, spool_files
from tests.waiting import eventually


def test_it_arrives_and_the_disk_has_a_part_at_a_time(serving: Serving, storage: TellingFS) -> None:
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    most = 0
    for offset in range(0, len(CONTENT), PIECE):
        send(serving, client, handle, CONTENT[: offset + PIECE], offset)
        most = max(most, on_disk(serving))
        assert serving.tree.store.quota.used <= QUOTA
    assert client.wait(client.fstat(handle)).attributes.size == len(CONTENT)
    assert most <= QUOTA
    assert client.wait(client.close(handle)).ok
    assert storage.readbytes("/f") == CONTENT
    assert serving.tree.store.quota.used == 0
    assert not spool_files(serving)


def test_while_there_is_room_everything_is_kept(serving: Serving) -> None:
    client = serving.raw()
    handle = client.opened("/f", W | R | C | T)
    send(serving, client, handle, CONTENT[: QUOTA // 2])
    assert serving.tree.store.quota.used == QUOTA // 2
    assert client.wait(client.read(handle, 0, 100)).data == CONTENT[:100]
    assert client.wait(client.write(handle, 0, b"rewritten")).ok


def cut_in_the_middle(serving: Serving, storage: TellingFS) -> int:
    """Send the first half with nothing dropped, lose the connection, have little room then; return what is kept."""
    storage.most_stored = 10 * MIB
    serving.tree.store.quota.limit = 10 * QUOTA
    session = serving.session()
    client = session.raw()
    send(serving, client, client.opened("/f", W | C | T), CONTENT[:QUOTA])
    session.cut()
    serving.tree.store.quota.limit = QUOTA + 2 * MIB
    (draft,) = serving.tree.store.overlay.all()
    assert draft.forwarding.checkpoint == (str(10 * MIB), 10 * MIB)
    return draft.size


def test_what_the_storage_has_of_an_earlier_connection_is_kept_until_it_was_read(
    serving: Serving, storage: TellingFS
) -> None:
    start = cut_in_the_middle(serving, storage)
    client = serving.raw()
    handle = client.opened("/f", W | C)
    before = len(storage.happened("write"))
    with storage.stalled("write", "/f"):
        assert client.wait(client.write(handle, start, CONTENT[start : start + PIECE])).ok
        eventually(lambda: len(storage.happened("write")) > before, "never: it is gone on with")
        assert client.wait(client.write(handle, start + PIECE, CONTENT[start + PIECE : start + 2 * PIECE])).ok
    storage.most_stored = 2**40
    send(serving, client, handle, start=start + 2 * PIECE)
    assert on_disk(serving) < len(CONTENT)
    assert client.wait(client.close(handle)).ok
    assert storage.readbytes("/f") == CONTENT


@pytest.mark.parametrize("at", ["a WRITE", "the CLOSE"])
def test_what_cannot_be_sent_anew_fails_for_the_reason_of_the_storage(
    serving: Serving, storage: TellingFS, at: str
) -> None:
    """An upload that goes on with an earlier one is sent anew where that was no good; not where it is here no more."""
    start = cut_in_the_middle(serving, storage)
    storage.most_stored = 2**40
    client = serving.raw()
    handle = client.opened("/f", W | C)
    send(serving, client, handle, start=start)
    assert on_disk(serving) < len(CONTENT)
    storage.faults["write" if at == "a WRITE" else "commit"] = errors.OperationFailed("/f", msg="it was forgotten")
    if at == "a WRITE":
        client.wait(client.write(handle, len(CONTENT), b"x"))
        (draft,) = serving.tree.store.overlay.all()
        eventually(lambda: not draft.forwarding.lag)
        assert "it was forgotten" in client.wait(client.write(handle, len(CONTENT) + 1, b"x")).text
    assert "it was forgotten" in client.wait(client.close(handle)).text
    storage.faults.clear()
    assert not storage.exists("/f")
    assert serving.tree.store.quota.used == 0


@pytest.mark.parametrize("then", ["write", "truncate"])
def test_what_cannot_be_sent_anew_is_not_changed(serving: Serving, storage: TellingFS, then: str) -> None:
    """Although it is still here: refused at once rather than by the CLOSE."""
    storage.most_stored = QUOTA
    client = serving.raw()
    handle = client.opened("/f", W | R | C | T)
    send(serving, client, handle, CONTENT[: QUOTA + 2 * MIB])
    at = QUOTA + MIB
    assert client.wait(client.read(handle, at, 100)).data == CONTENT[at : at + 100]
    if then == "write":
        assert ONLY_FORWARD in client.wait(client.write(handle, at, b"rewritten")).text
        assert ONLY_FORWARD in client.wait(client.close(handle)).text
        assert not storage.exists("/f")
    else:
        assert ONLY_FORWARD in client.wait(client.fsetstat(handle, size=at)).text
        assert client.wait(client.close(handle)).ok
        assert storage.readbytes("/f") == CONTENT[: QUOTA + 2 * MIB]


@pytest.mark.parametrize("then", ["write", "read", "truncate"])
def test_what_is_not_here_any_more_is_not_taken_for_zeros(serving: Serving, storage: TellingFS, then: str) -> None:
    storage.writebytes("/f", b"old")
    client = serving.raw()
    handle = thinned(client, serving)
    if then == "write":
        reply = client.wait(client.write(handle, 0, b"rewritten"))
    elif then == "read":
        reply = client.wait(client.read(handle, 0, 100))
    else:
        reply = client.wait(client.fsetstat(handle, size=100))
    assert ONLY_FORWARD in reply.text
    last = client.wait(client.read(handle, len(CONTENT) - 100, 100))
    assert last.data == CONTENT[-100:]
    closed = client.wait(client.close(handle))
    if then == "write":
        assert ONLY_FORWARD in closed.text
        assert storage.readbytes("/f") == b"old"
    else:
        assert closed.ok
        assert storage.readbytes("/f") == CONTENT


def test_it_gets_no_other_name_in_the_middle(serving: Serving, storage: TellingFS) -> None:
    """What the storage has goes to the name that it began with, and is not here to be sent anew."""
    client = serving.raw()
    storage.makedir("/d")
    handle = thinned(client, serving, "/d/f")
    for source, target in (("/d/f", "/g"), ("/d", "/e")):
        for ask in (client.rename, client.posix_rename):
            assert "upload is under way" in client.wait(ask(source, target)).text
    assert client.wait(client.close(handle)).ok
    assert client.wait(client.rename("/d", "/e")).ok
    assert storage.readbytes("/e/f") == CONTENT


def test_what_the_storage_does_not_have_is_kept(
    serving: Serving, storage: TellingFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "HOLD_SECONDS", 0.1)  # of each WRITE while the storage makes no room
    storage.most_stored = 8 * MIB
    client = serving.raw()
    handle = client.opened("/f", W | R | C | T)
    send(serving, client, handle, CONTENT[: 8 * MIB + QUOTA])
    assert client.wait(client.read(handle, 8 * MIB, 100)).data == CONTENT[8 * MIB : 8 * MIB + 100]
    reply = client.wait(client.write(handle, 8 * MIB + QUOTA, b"x"))
    assert "used up" in reply.text
    storage.most_stored = 2**40
    assert client.wait(client.write(handle, 8 * MIB + QUOTA, b"x")).ok
    assert client.wait(client.close(handle)).ok
    assert storage.readbytes("/f") == CONTENT[: 8 * MIB + QUOTA] + b"x"


def test_cut_off_it_is_gone(serving: Serving, storage: TellingFS) -> None:
    session = serving.session()
    thinned(session.raw(), serving)
    session.cut()
    client = serving.raw()
    assert client.wait(client.stat("/f")).code == 2
    assert not spool_files(serving)
    assert serving.tree.store.quota.used == 0
    assert not storage.exists("/f")


def test_who_has_seen_more_of_it_than_is_left_does_not_go_on(serving: Serving, storage: TellingFS) -> None:
    session = serving.session()
    thinned(session.raw(), serving)
    client = serving.raw()
    seen = client.wait(client.stat("/f")).attributes.size
    assert seen == len(CONTENT)
    session.cut()  # just then
    serving.tree.store.quota.limit = 10 * QUOTA  # there would be room for the zeros
    handle = client.opened("/f", W | C)
    assert client.wait(client.write(handle, seen, b"the end")).ok
    assert "upload the whole file again" in client.wait(client.close(handle)).text
    assert not storage.exists("/f")
    client.put("/f", b"anew")
    assert storage.readbytes("/f") == b"anew"


def test_nothing_on_disk_says_that_it_could_be_continued(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that is killed in any moment leaves nothing that a later one takes for content."""
    notes: list[list[Path]] = []

    def punched(descriptor: int, start: int, end: int) -> bool:
        notes.append(list(tmp_path.glob("*.json")))
        return punch(descriptor, start, end)

    monkeypatch.setattr(spool, "punch", punched)
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    send(serving, client, handle, CONTENT[: QUOTA // 2])
    assert list(tmp_path.glob("*.json"))
    send(serving, client, handle, start=QUOTA // 2)
    assert notes == [[]] * len(notes)
    assert 2 < len(notes) <= len(CONTENT) // MIB, "the disk is asked for each write"
    assert not list(tmp_path.glob("*.json"))


def noted_and_stored(serving: Serving) -> tuple[Draft, Path]:
    """Send something that is noted, and could be dropped; return it and its note."""
    client = serving.raw()
    send(serving, client, client.opened("/f", W | C | T), CONTENT[: QUOTA // 2])
    (draft,) = serving.tree.store.overlay.all()
    assert draft.spool.path is not None
    note = draft.spool.path.with_suffix(".json")
    assert note.exists()
    return draft, note


def test_a_note_that_is_just_being_renewed_does_not_outlive_what_it_vouches_for(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session gives the file, or a directory above it, another name."""
    draft, note = noted_and_stored(serving)
    is_dropped = threading.Event()
    dropping = threading.Thread(target=lambda: is_dropped.set() if draft.pace.thin() else None)
    this_thread = threading.current_thread()

    def dumps(content: Any) -> str:
        if threading.current_thread() is this_thread:  # and not the stream's
            dropping.start()
            is_dropped.wait(0.5)
        return json.dumps(content)

    monkeypatch.setattr(partials, "json", types.SimpleNamespace(dumps=dumps, loads=json.loads))
    serving.tree.store.drafts.note_again(draft)
    dropping.join()
    assert draft.spool.dropped
    assert not note.exists()


def test_what_cannot_be_forgotten_is_not_dropped(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    draft, note = noted_and_stored(serving)
    with monkeypatch.context() as refusing:
        refusing.setattr(Path, "unlink", refuse)
        assert not draft.pace.thin()
        assert not draft.pace.thin(), "it is taken for forgotten"
    assert note.exists()
    assert draft.lasting == QUOTA // 2 - 1
    assert draft.pace.thin()
    assert not note.exists()


def test_who_has_it_open_twice_goes_on_over_what_was_stored(serving: Serving, storage: TellingFS) -> None:
    client = serving.raw()
    handle = thinned(client, serving)
    other = client.opened("/f", W | R)
    assert client.wait(client.close(handle)).ok
    assert client.wait(client.read(other, 0, 100)).data == CONTENT[:100]
    assert client.wait(client.write(other, 0, b"new")).ok
    assert client.wait(client.close(other)).ok
    assert storage.readbytes("/f") == b"new" + CONTENT[3:]
    assert serving.tree.store.quota.used == 0


def test_over_dropbox(serve_dropbox: ServeDropbox, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose uploads are eight blocks ahead of what it has for certain; no byte is sent twice."""
    quota, size = 160 * MIB, 320 * MIB
    serving = serve_dropbox(TreeLimits(spool_quota=quota))
    client = serving.raw()
    block = random.Random(2).randbytes(8 * MIB)
    handle = client.opened("/large", W | C | T, a(size=size))
    emulator.control.reset_counts()
    for start in range(0, size, len(block)):
        pieces = [client.write(handle, start + at, block[at : at + PIECE]) for at in range(0, len(block), PIECE)]
        assert all(reply.ok for reply in client.all(pieces))
        assert on_disk(serving) <= quota
    assert client.wait(client.close(handle), seconds=60).ok
    content = emulator.control.read("/large")
    assert hashlib.sha256(content).digest() == hashlib.sha256(block * (size // len(block))).digest()
    assert emulator.control.calls()["files/upload_session/append_v2"] <= size // len(block) + 1
    eventually(lambda: not spool_files(serving))
