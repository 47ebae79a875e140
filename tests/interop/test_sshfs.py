"""sshfs: programs that know nothing of SFTP edit, build and keep repositories in a mounted Dropbox."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_dropbox.emulator.control.control import Control
from tests.clients import client
from tests.waiting import eventually

from .stack import KEY, MIB, GatewayProcess, Stack, digest, run, start

pytestmark = pytest.mark.interop

# Files of a mount are touched by other processes only: this one also runs the emulator, and some calls of Python keep
# its threads from running while the kernel waits for an answer.


class Mount:
    """A mounted Dropbox."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder

    @property
    def control(self) -> Control:
        """Dropbox, once it has what was acknowledged."""
        return self.stack.control

    def sh(self, script: str, timeout: float = 120.0) -> str:
        """Run a script of the shell in the mount; it must succeed."""
        done = run([client("sh"), "-euc", script], folder=self.folder, timeout=timeout)
        assert done.code == 0, done.out + done.err
        return done.out

    def settled(self, path: str, content: bytes) -> None:
        """Wait until Dropbox has this content: sshfs does not wait for the answer to its CLOSE."""

        def found() -> bytes | None:
            return self.control.read(path) if self.control.exists(path) else None

        eventually(
            lambda: found() == content, lambda: f"{path}: {len(found() or b'')} bytes, {(found() or b'')[:60]!r}"
        )


@pytest.fixture
def mount(request: pytest.FixtureRequest, process: GatewayProcess, bare_stack: Stack) -> Iterator[Mount]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        if os.environ.get("REQUIRE_CLIENTS"):
            pytest.fail("/dev/fuse cannot be used", pytrace=False)
        pytest.skip("/dev/fuse cannot be used")
    folder = bare_stack.folder / "mount"
    folder.mkdir()
    options = getattr(request, "param", "reconnect,ServerAliveInterval=15,idmap=user")
    unmount = [client("fusermount3"), "-u", str(folder)]
    with start([client("sshfs"), "-f", "-F", bare_stack.ssh_config, f"{KEY}:/", folder, "-o", options]) as sshfs:

        def is_mounted() -> bool:
            if sshfs.poll() is not None:
                pytest.fail(f"sshfs does not mount: {sshfs.communicate(timeout=30)}\n{process.log()}")
            return subprocess.run(["mountpoint", "-q", folder], timeout=30, check=False).returncode == 0

        eventually(is_mounted, lambda: f"sshfs does not mount: {process.log()}")
        try:
            yield Mount(bare_stack, folder)
            done = run(unmount, folder=bare_stack.folder, timeout=20)
            assert done.code == 0, done.err
            assert sshfs.wait(20) == 0
        finally:
            if sshfs.poll() is None:
                run([client("fusermount3"), "-u", "-z", folder], folder=bare_stack.folder, timeout=20)
    folder.rmdir()


def test_a_file_is_written_read_and_listed(mount: Mount) -> None:
    assert mount.sh("echo hello > 'a file'; cat 'a file'; ls; stat -c %s:%F 'a file'") == (
        "hello\na file\n6:regular file\n"
    )
    mount.settled("/a file", b"hello\n")


def test_bytes_in_the_middle_are_edited_in_place(mount: Mount) -> None:
    content = bytearray(os.urandom(9 * MIB))
    mount.control.write("/file", bytes(content))
    revision = mount.control.metadata("/file")["rev"]
    mount.sh(f"printf 0123456789 | dd of=file bs=1 seek={5 * MIB} conv=notrunc status=none")
    content[5 * MIB : 5 * MIB + 10] = b"0123456789"
    mount.settled("/file", bytes(content))
    assert mount.control.metadata("/file")["rev"] != revision


def test_a_file_shrinks_and_grows(mount: Mount) -> None:
    mount.control.write("/file", b"x" * 100_000)
    assert mount.sh("truncate -s 10 file; stat -c %s file") == "10\n"
    mount.settled("/file", b"x" * 10)
    assert mount.sh("truncate -s 5000 file; stat -c %s file") == "5000\n"
    mount.settled("/file", b"x" * 10 + bytes(4990))
    mount.sh(": > file")
    mount.settled("/file", b"")


def test_lines_are_appended(mount: Mount) -> None:
    mount.sh("for i in 1 2 3 4 5; do echo line $i >> log; done")
    mount.settled("/log", b"".join(b"line %d\n" % number for number in range(1, 6)))


@pytest.mark.write_back
def test_a_new_file_is_renamed_over_the_old_one(mount: Mount) -> None:
    """As editors save."""
    mount.control.write("/letter", b"old")
    assert (
        mount.sh("echo new > .letter.tmp; sync .letter.tmp; mv .letter.tmp letter; cat letter; ls -A")
        == "new\nletter\n"
    )
    mount.settled("/letter", b"new\n")
    assert mount.control.tree() == {"/letter": 4}


def test_folders_are_made_moved_and_removed(mount: Mount) -> None:
    mount.sh(
        "mkdir -p a/b/c; echo 1 > a/b/c/file; mv a/b moved; rmdir a; cat moved/c/file; cp -rp moved copy; rm -r moved"
    )
    mount.settled("/copy/c/file", b"1\n")
    assert mount.control.tree() == {"/copy": None, "/copy/c": None, "/copy/c/file": 2}


def test_df_shows_the_quota(mount: Mount) -> None:
    allocated = mount.stack.emulator.account.allocated_bytes
    total, _, available = mount.sh("df --output=size,used,avail . | tail -1").split()
    assert int(total) == allocated // 1024
    assert 0 < int(available) <= int(total)


def test_a_large_file_is_copied_in_and_out(mount: Mount) -> None:
    content = mount.stack.write("large", os.urandom(30 * MIB)).read_bytes()
    mount.sh("cp ../large large; cmp ../large large")
    mount.settled("/large", content)
    mount.sh("cp large ../back")
    assert digest((mount.stack.folder / "back").read_bytes()) == digest(content)


def test_a_repository_is_cloned_into_the_mount(mount: Mount) -> None:
    git = client("git")
    identity = "-c user.name=Ann -c user.email=ann@example.com"
    source = mount.stack.folder / "source"
    source.mkdir()
    for number in range(12):
        (source / f"file {number}.txt").write_text(f"content {number}\n")
    script = f"{git} init -q . && {git} add . && {git} {identity} commit -q -m one && {git} {identity} tag v1"
    assert run([client("sh"), "-euc", script], folder=source).code == 0
    mount.sh(
        f"{git} clone -q ../source copy; cd copy; {git} status --porcelain; {git} fsck --strict;"
        f" echo more >> 'file 1.txt'; {git} {identity} commit -q -am two; {git} log --oneline | wc -l"
    )
    mount.settled("/copy/file 1.txt", b"content 1\nmore\n")
    assert (
        mount.sh(f"cd copy; {git} status --porcelain; {git} fsck --strict 2>&1; {git} rev-list --count HEAD") == "2\n"
    )


@pytest.mark.parametrize("mount", ["umask=022"], indirect=True)  # Dropbox keeps no modes: all files may be executed
def test_a_program_is_built_in_the_mount(mount: Mount) -> None:
    client("make")
    client("cc")
    mount.sh(
        r"""
        mkdir src; cd src
        printf '#include "say.h"\nint main(void) { return say(); }\n' > main.c
        printf '#include <stdio.h>\n#include "say.h"\nint say(void) { puts("built"); return 0; }\n' > say.c
        printf 'int say(void);\n' > say.h
        printf 'prog: main.o say.o\n\tcc -o prog main.o say.o\n%%.o: %%.c say.h\n\tcc -c $<\n' > Makefile
        """
    )
    assert mount.sh("cd src; make -s; ./prog") == "built\n"
    assert mount.sh("cd src; make -s -q; echo $?") == "0\n"
    assert {"/src/prog", "/src/main.o", "/src/say.o"} <= set(mount.control.tree())
