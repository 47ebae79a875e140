"""paramiko's and asyncssh's clients: what scripts and libraries above them do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import asyncssh
import paramiko
import pytest

from .stack import MIB, Stack, digest, digests, make_tree

pytestmark = pytest.mark.interop


@pytest.fixture
def sftp(stack: Stack) -> Iterator[paramiko.SFTPClient]:
    with stack.connection() as client:
        yield client


def test_paramiko_puts_and_gets(stack: Stack, sftp: paramiko.SFTPClient) -> None:
    content = stack.write("file", os.urandom(9 * MIB + 1)).read_bytes()
    assert sftp.put(str(stack.folder / "file"), "/file", confirm=True).st_size == len(content)
    assert stack.stored() == {"file": digest(content)}
    sftp.get("/file", str(stack.folder / "back"))
    assert digest((stack.folder / "back").read_bytes()) == digest(content)
    with sftp.open("/file", "rb") as file:
        file.prefetch(len(content))
        assert digest(file.read()) == digest(content)
        file.seek(5 * MIB)
        assert file.read(100) == content[5 * MIB : 5 * MIB + 100]


def test_paramiko_sees_the_size_after_every_put(stack: Stack, sftp: paramiko.SFTPClient) -> None:
    for number in range(100):
        content = bytes([number]) * (number * 37)
        with sftp.open("/file", "wb") as file:
            file.set_pipelined(True)
            file.write(content)
        assert sftp.stat("/file").st_size == len(content)
    assert stack.control.read("/file") == content


def test_paramiko_renames_over(stack: Stack, sftp: paramiko.SFTPClient) -> None:
    stack.control.write("/new", b"new")
    stack.control.write("/old", b"old")
    with pytest.raises(OSError, match=r"(?i)exists|failure"):
        sftp.rename("/new", "/old")
    assert stack.control.read("/old") == b"old"
    sftp.posix_rename("/new", "/old")
    assert stack.control.tree() == {"/old": 3}
    assert stack.control.read("/old") == b"new"


@pytest.mark.write_back
def test_paramiko_edits_appends_and_truncates(stack: Stack, sftp: paramiko.SFTPClient) -> None:
    stack.control.write("/file", b"0123456789")
    with sftp.open("/file", "r+b") as file:
        file.seek(3)
        file.write(b"abc")
    with sftp.open("/file", "ab") as file:
        file.write(b"end")
    assert stack.control.read("/file") == b"012abc6789end"
    sftp.truncate("/file", 5)
    assert stack.control.read("/file") == b"012ab"


def test_paramiko_creates_exclusively(stack: Stack, sftp: paramiko.SFTPClient) -> None:
    with sftp.open("/file", "wxb") as file:
        file.write(b"mine")
    with pytest.raises(OSError, match=r"(?i)exists|failure"):
        sftp.open("/FILE", "wxb")
    assert stack.control.read("/file") == b"mine"


def test_paramiko_removes_and_lists(stack: Stack, sftp: paramiko.SFTPClient) -> None:
    sftp.mkdir("/folder")
    with sftp.open("/folder/ü", "wb") as file:
        file.write(b"1")
    assert [(entry.filename, entry.st_size) for entry in sftp.listdir_attr("/folder")] == [("ü", 1)]
    with pytest.raises(OSError, match=r"(?i)not empty|failure"):
        sftp.rmdir("/folder")
    sftp.remove("/folder/ü")
    sftp.rmdir("/folder")
    assert stack.control.tree() == {}
    with pytest.raises(FileNotFoundError):
        sftp.stat("/folder")


def test_asyncssh_puts_and_gets_a_tree(stack: Stack) -> None:
    tree = make_tree(stack.folder / "tree")

    async def work() -> None:
        async with asyncssh.connect(**stack.asyncssh) as connection, connection.start_sftp_client() as sftp:
            await sftp.put(stack.folder / "tree", "/tree", recurse=True, preserve=True)
            await sftp.get("/tree", stack.folder / "back", recurse=True)

    asyncio.run(work())
    assert stack.stored("/tree") == tree
    assert digests(stack.folder / "back") == tree


def test_asyncssh_puts_and_gets_at_the_same_time(stack: Stack) -> None:
    contents = {f"{number}": os.urandom(MIB + number) for number in range(8)}
    for name, content in contents.items():
        stack.write(name, content)

    async def work() -> None:
        async with asyncssh.connect(**stack.asyncssh) as connection, connection.start_sftp_client() as sftp:
            await asyncio.gather(*(sftp.put(stack.folder / name, f"/{name}") for name in contents))
            await asyncio.gather(*(sftp.get(f"/{name}", stack.folder / f"{name}.back") for name in contents))

    asyncio.run(work())
    assert stack.stored() == {name: digest(content) for name, content in contents.items()}
    for name, content in contents.items():
        assert (stack.folder / f"{name}.back").read_bytes() == content


def test_asyncssh_is_told_that_there_is_no_scp(stack: Stack) -> None:
    """Its scp() speaks the old protocol, which needs a command on the server."""
    stack.write("file", b"1")

    async def work() -> None:
        async with asyncssh.connect(**stack.asyncssh) as connection:
            await asyncssh.scp(stack.folder / "file", (connection, "/file"))

    with pytest.raises((asyncssh.Error, OSError), match="SFTP only"):
        asyncio.run(asyncio.wait_for(work(), 20))
    assert not stack.control.exists("/file")
