"""What is cut off, killed or refused never shows in Dropbox, and goes on afterwards where it stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import asyncssh
import paramiko
import pytest

from tests.waiting import eventually

from .conftest import LogLines
from .sessions import cut, send, size_of
from .stack import COMMITS, MIB, GatewayProcess, Stack, digest, start

pytestmark = pytest.mark.interop
SIZE = 10 * MIB
OLD = b"the old version"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("percent", [1, 50, 100])
def test_a_cut_connection_leaves_the_old_version(stack: Stack, percent: int, reset: bool, log_lines: LogLines) -> None:
    before = stack.control.write("/file", OLD)
    content = stack.write("file", os.urandom(SIZE)).read_bytes()
    with stack.connection() as sftp:
        file = send(sftp, "/file", content[: SIZE * percent // 100])
        cut(sftp, reset=reset)
        del file  # paramiko sends CLOSE for a file that is forgotten
    (line,) = log_lines("upload", 1)
    assert line["result"] != "ok"
    assert stack.control.metadata("/file") == before
    assert stack.control.tree() == {"/file": len(OLD)}
    stack.sftp("put file")
    assert stack.stored() == {"file": digest(content)}


@pytest.mark.parametrize("percent", [1, 50, 100])
def test_a_cut_upload_of_a_new_file_goes_on(stack: Stack, percent: int, log_lines: LogLines) -> None:
    content = stack.write("file", os.urandom(SIZE)).read_bytes()
    size = SIZE * percent // 100
    with stack.connection() as sftp:
        file = send(sftp, "/file", content[:size])
        cut(sftp, reset=False)
        del file
    log_lines("upload", 1)
    assert stack.control.tree() == {}
    # one byte less than arrived: whoever sees the whole size takes the file for stored
    assert int(stack.sftp("ls -ln").splitlines()[1].split()[4]) == size - 1
    stack.sftp("reput file")
    assert stack.stored() == {"file": digest(content)}


def test_a_killed_client_goes_on(stack: Stack, log_lines: LogLines) -> None:
    content = stack.write("file", os.urandom(SIZE)).read_bytes()
    with (
        stack.connection() as watcher,
        start(stack.ssh_command("sftp", "-l", "20000", "box"), folder=stack.folder) as sftp,
    ):
        assert sftp.stdin is not None
        sftp.stdin.write("put file\n")
        sftp.stdin.flush()
        eventually(lambda: "file" in watcher.listdir() and size_of(watcher, "file") > MIB, "nothing is sent")
        os.killpg(sftp.pid, signal.SIGKILL)
        log_lines("upload", 1)
        assert stack.control.tree() == {}
        size = size_of(watcher, "file")
        assert MIB < size < SIZE
    stack.control.reset_counts()
    stack.sftp("reput file")
    assert stack.stored() == {"file": digest(content)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_stopped_gateway_leaves_the_old_version(
    process: GatewayProcess, bare_stack: Stack, number: signal.Signals
) -> None:
    stack = bare_stack
    before = stack.control.write("/file", OLD)
    content = stack.write("file", os.urandom(SIZE)).read_bytes()
    with stack.connection() as sftp:
        file = send(sftp, "/file", content[: SIZE // 2])
        process.send(number)
        assert process.wait() == (0 if number == signal.SIGTERM else -number)
        with pytest.raises((OSError, EOFError, paramiko.SSHException)):
            file.stat()
    assert stack.control.metadata("/file") == before
    process.start()
    assert stack.control.metadata("/file") == before
    stack.sftp("put file")
    assert stack.stored() == {"file": digest(content)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_an_upload_goes_on_after_the_gateway_was_stopped(
    process: GatewayProcess, bare_stack: Stack, number: signal.Signals
) -> None:
    stack = bare_stack
    content = stack.write("file", os.urandom(SIZE)).read_bytes()
    with stack.connection() as sftp:
        file = send(sftp, "/file", content[: SIZE // 2])
        process.send(number)
        process.wait()
        del file
    assert stack.control.tree() == {}
    process.start()
    with stack.connection() as sftp:
        kept = size_of(sftp, "/file")
        assert SIZE // 2 - 2 * MIB < kept < SIZE // 2
    stack.sftp("reput file")
    assert stack.stored() == {"file": digest(content)}


def test_a_client_is_not_cut_off_by_sigterm_while_it_sends(bare_stack: Stack) -> None:
    stack = bare_stack
    gateway = GatewayProcess(stack, drain_seconds=30.0)
    content = stack.write("file", os.urandom(SIZE)).read_bytes()
    try:
        gateway.start()
        with start(stack.ssh_command("sftp", "-l", "40000", "-b", "-", "box"), folder=stack.folder) as sftp:
            with stack.connection() as watcher:
                assert sftp.stdin is not None
                sftp.stdin.write("put file\n")
                sftp.stdin.flush()
                eventually(lambda: "file" in watcher.listdir() and size_of(watcher, "file") > MIB, "nothing sent")
            gateway.send(signal.SIGTERM)
            _, errors = sftp.communicate(timeout=60)
            assert sftp.returncode == 0, errors
        assert gateway.wait(60) == 0
        assert stack.stored() == {"file": digest(content)}
    finally:
        gateway.close()


def fail_commits(stack: Stack, tag: str) -> None:
    """Let Dropbox refuse every commit for this reason."""
    why = {".tag": tag}
    small = {".tag": "path", "reason": why, "upload_session_id": "some"}
    stack.control.fault("files/upload", "error", None, error=small)
    stack.control.fault("files/upload_session/finish", "error", None, error={".tag": "path", "path": why})


@pytest.mark.direct_only("CLOSE was answered before Dropbox refused: test_written_back.py")
@pytest.mark.parametrize("size", [1000, SIZE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("tag", "error", "reason"),
    [
        ("insufficient_space", asyncssh.SFTPFailure, "the Dropbox is full"),
        ("no_write_permission", asyncssh.SFTPPermissionDenied, "to write in this shared folder"),
        ("disallowed_name", asyncssh.SFTPFailure, "does not allow this name"),
    ],
)
def test_a_commit_that_fails_is_told_with_its_reason(
    stack: Stack, tag: str, error: type[asyncssh.SFTPError], reason: str, size: int, log_lines: LogLines
) -> None:
    before = stack.control.write("/file", OLD)
    content = stack.write("file", os.urandom(size)).read_bytes()
    fail_commits(stack, tag)

    async def put() -> None:
        async with asyncssh.connect(**stack.asyncssh) as connection, connection.start_sftp_client() as sftp:
            await sftp.put(stack.folder / "file", "/file")

    with pytest.raises(error, match=reason):
        asyncio.run(put())
    (line,) = log_lines("upload", 1)
    assert (line["path"], line["result"]) == ("/file", "failed")
    assert reason in line["reason"]
    done = stack.try_sftp("put file")
    assert done.code == 1
    assert "remote" in done.err
    assert stack.control.metadata("/file") == before
    stack.control.clear_faults()
    stack.sftp("put file")
    assert stack.stored() == {"file": digest(content)}


@pytest.mark.direct_only("as before")
@pytest.mark.parametrize("size", [1000, SIZE], ids=["small", "large"])
@pytest.mark.parametrize("existed", [False, True], ids=["new", "replaced"])
def test_paramiko_notices_a_commit_that_fails(stack: Stack, existed: bool, size: int) -> None:
    """It ignores the answer to CLOSE and looks at the size instead."""
    if existed:
        stack.control.write("/file", OLD)
    stack.write("file", os.urandom(size))
    fail_commits(stack, "insufficient_space")
    with stack.connection() as sftp, pytest.raises(OSError, match=r"size mismatch|no such file"):
        sftp.put(str(stack.folder / "file"), "/file")
    assert stack.control.tree() == ({"/file": len(OLD)} if existed else {})


@pytest.mark.parametrize("size", [1000, SIZE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("rate_limit", {"retry_after": 1}),
        ("server_error", {"status": 503}),
        ("too_many_write_operations", {}),
        ("reset", {}),
        ("ambiguous", {}),
        ("expired_token", {}),
    ],
)
def test_a_commit_that_fails_for_a_moment_succeeds(
    stack: Stack, kind: str, parameters: dict[str, Any], size: int
) -> None:
    content = stack.write("file", os.urandom(size)).read_bytes()
    before = stack.control.write("/file", OLD)
    for route in COMMITS:
        stack.control.fault(route, kind, **parameters)
    stack.sftp("put file")
    assert stack.control.faults_struck == 1
    assert stack.stored() == {"file": digest(content)}
    assert stack.control.metadata("/file")["rev"] != before["rev"]


def test_a_refused_name_is_told_before_anything_is_sent(stack: Stack) -> None:
    stack.write("file", b"1")
    done = stack.try_sftp('put file "a\\\\b"')
    assert done.code == 1
    stack.control.reset_counts()
    with stack.connection() as sftp, pytest.raises(OSError, match="name"):
        sftp.open("/a\\b", "wb")
    assert not [route for route in stack.control.calls() if "upload" in route]
    assert stack.control.tree() == {}
