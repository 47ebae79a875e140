"""What Dropbox has of an upload is not sent again, whatever broke it off and whichever client goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from paramiko import SFTPFile

from fs_dropbox.emulator.meter import Record
from tests.clients import client
from tests.sftp_gateway.raw_client import C, W
from tests.waiting import eventually

from .sessions import cut, raw, send
from .stack import KEY, MIB, PASSWORD, GatewayProcess, Stack, digest, run

pytestmark = pytest.mark.interop

APPEND = "files/upload_session/append_v2"
SIZE = 44 * MIB + 5
CUT = 36 * MIB
CERTAIN = 24 * MIB  # Dropbox has at least so much of it when the upload is broken off
BLOCK = 8 * MIB


def begin(stack: Stack, path: str = "/file", stop: Callable[[SFTPFile], object] | None = None) -> bytes:
    """Send most of a file, break its upload off when Dropbox has the beginning, and count from there.

    With write-back the beginning is on the gateway's disk alone.
    """
    content = stack.write("file", os.urandom(SIZE)).read_bytes()

    def is_noted() -> bool:
        notes = [json.loads(note.read_text()) for note in (stack.folder / "state").rglob("*.json")]
        return any(stack.write_back or (note["upload"] and note["upload"][1] >= CERTAIN) for note in notes)

    with stack.connection() as sftp:
        file = send(sftp, path, content[:CUT])
        eventually(is_noted, "nothing is sent on")
        if stop is None:
            cut(sftp, reset=True)
        else:
            stop(file)
        del file
    stack.control.reset_counts()
    return content


def appends(stack: Stack) -> list[Record]:
    """What was sent since the upload was broken off; the first of these may still be that upload's."""
    return [each for each in stack.control.requests() if each.route == APPEND and each.argument is not None]


def sent_anew(stack: Stack) -> int:
    """How much of the file was sent to the session that it was committed from."""
    sessions = [(each.argument["cursor"]["session_id"], each.bytes_in) for each in appends(stack)]
    return sum(size for session, size in sessions if session == sessions[-1][0])


def went_on(stack: Stack, content: bytes, path: str = "file") -> None:
    assert stack.stored() == {path: digest(content)}
    if not stack.write_back:
        offsets = [each.argument["cursor"]["offset"] for each in appends(stack)]
        assert min(offsets) >= CERTAIN, offsets
        assert stack.control.calls()["files/upload_session/start"] == 0


def openssh(stack: Stack) -> None:
    stack.sftp("reput file")


def lftp(stack: Stack) -> None:
    connect = f"set sftp:connect-program 'ssh -a -x -F {stack.ssh_config}'; set net:max-retries 1"
    script = f"{connect}; open -u ann,x sftp://{KEY}; put -c file"
    done = run([client("lftp"), "--norc", "-c", script], folder=stack.folder)
    assert done.code == 0, done.err


def curl(stack: Stack) -> None:
    (stack.folder / "curlrc").write_text(f'user = "bob:{PASSWORD}"\ninsecure\nsilent\nshow-error\n')
    where = f"sftp://127.0.0.1:{stack.port}/file"
    done = run([client("curl"), "--config", "curlrc", "-C", "-", "-T", "file", where], folder=stack.folder)
    assert done.code == 0, done.err


def psftp(stack: Stack) -> None:
    batch = ["-batch", "-hostkey", stack.fingerprint, "-P", str(stack.port), "-pw", PASSWORD, "-l", "bob", "127.0.0.1"]
    done = run([client("psftp"), *batch], stdin="reput file\n", folder=stack.folder)
    assert done.code == 0, done.err


@pytest.mark.parametrize("go_on", [openssh, lftp, curl, psftp], ids=lambda go_on: go_on.__name__)
def test_a_client_goes_on_where_dropbox_stopped(stack: Stack, go_on: Callable[[Stack], None]) -> None:
    content = begin(stack)
    eventually(lambda: str(CUT - 1) in stack.sftp("ls -ln"), "nothing is kept")
    go_on(stack)
    went_on(stack, content)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_it_goes_on_after_the_gateway_was_stopped(
    process: GatewayProcess, bare_stack: Stack, number: signal.Signals
) -> None:
    def stop(_file: SFTPFile) -> None:
        process.send(number)
        process.wait()

    content = begin(bare_stack, stop=stop)
    assert bare_stack.control.tree() == {}
    process.start()
    bare_stack.sftp("reput file")
    went_on(bare_stack, content)


def test_winscp_goes_on_under_another_name(stack: Stack) -> None:
    content = begin(stack, "/file.filepart")
    with raw(stack) as session:
        eventually(lambda: session.wait(session.lstat("/file.filepart")).attributes.size == CUT - 1, "nothing is kept")
        handle = session.opened("/file.filepart", W | C)  # neither TRUNC nor APPEND
        session.writes(handle, CUT - 1, content[CUT - 1 :])
        assert session.wait(session.close(handle)).ok
        assert session.wait(session.rename("/file.filepart", "/file")).ok
    went_on(stack, content)


def test_who_rewrites_what_was_sent_sends_it_again(stack: Stack) -> None:
    content = begin(stack)
    with raw(stack) as session:
        eventually(lambda: session.wait(session.lstat("/file")).attributes.size == CUT - 1, "nothing is kept")
        handle = session.opened("/file", W | C)
        session.write(handle, 10, b"changed")
        session.writes(handle, CUT - 1, content[CUT - 1 :])
        assert session.wait(session.close(handle)).ok
    assert stack.stored() == {"file": digest(content[:10] + b"changed" + content[17:])}
    assert stack.commits() == 1  # nothing wrong was ever visible


def test_what_was_rewritten_before_a_crash_is_sent_again(process: GatewayProcess, bare_stack: Stack) -> None:
    def stop(file: SFTPFile) -> None:
        file.seek(10)
        file.write(b"changed")
        file.stat()  # answered after the write
        process.send(signal.SIGKILL)
        process.wait()

    content = begin(bare_stack, stop=stop)
    content = bare_stack.write("file", content[:10] + b"changed" + content[17:]).read_bytes()
    process.start()
    bare_stack.sftp("reput file")
    assert bare_stack.stored() == {"file": digest(content)}
    assert bare_stack.commits() == 1  # nothing wrong was ever visible
    assert sent_anew(bare_stack) == SIZE


@pytest.mark.direct_only("Dropbox has nothing of it before CLOSE")
def test_what_dropbox_has_forgotten_is_sent_again(stack: Stack) -> None:
    content = begin(stack)
    stack.control.advance(8 * 24 * 3600)  # upload sessions live for seven days
    stack.sftp("reput file")
    assert stack.stored() == {"file": digest(content)}
    assert sent_anew(stack) == SIZE


@pytest.mark.direct_only("Dropbox has nothing of it before CLOSE")
@pytest.mark.parametrize("after", [1, 2], ids=["the first append", "the one that closes"])
def test_an_upload_that_cannot_be_gone_on_with_after_all_is_sent_anew(stack: Stack, after: int) -> None:
    content = begin(stack)
    # the first append only asks whether the session is still there
    stack.control.fault(APPEND, "error", 1, after, error={".tag": "not_found"})
    stack.sftp("reput file")
    assert stack.stored() == {"file": digest(content)}
    assert stack.control.calls()["files/upload_session/start"] == 1
