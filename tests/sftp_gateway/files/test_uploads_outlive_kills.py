"""Uploads that outlive the process that received them, also where it was killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sftp_gateway.files import notes
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, T, W, s
from tests.sftp_gateway.without_doors import Serving

MIB = 2**20


def test_a_partial_outlives_the_process(filesystem: AtomicFS, tmp_path: Path) -> None:
    serving = Serving(filesystem, tmp_path / "spool")
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"0123456789"))
    serving.close()  # as on SIGTERM
    (tmp_path / "spool" / "orphan.spool").write_bytes(b"left by kill -9")
    later = Serving(filesystem, tmp_path / "spool")
    assert not (tmp_path / "spool" / "orphan.spool").exists()
    beside = Serving(filesystem, tmp_path / "spool")  # another worker process must not take it, too
    assert beside.tree.store.overlay.all() == []
    client = later.raw()
    assert client.wait(client.stat("/f")).attributes.size == 9
    handle = client.opened("/f", W | C)
    assert all(reply.ok for reply in client.all([client.write(handle, 9, b"9ab"), client.close(handle)]))
    assert filesystem.readbytes("/f") == b"0123456789ab"
    assert list((tmp_path / "spool").iterdir()) == []
    later.close()
    beside.close()


def test_what_was_synced_outlives_kill_9(filesystem: AtomicFS, tmp_path: Path) -> None:
    """However little it is. A copy of the spool folder is what a killed process leaves."""
    serving = Serving(filesystem, tmp_path / "spool")
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"content"))
    assert client.wait(client.extended("fsync@openssh.com", s(handle))).ok
    shutil.copytree(tmp_path / "spool", tmp_path / "left")
    later = Serving(AtomicFS(), tmp_path / "left")
    (partial,) = later.tree.store.overlay.all()
    assert (partial.path, partial.read(0, 10)) == ("/f", b"conten"), "all but the last byte"
    for serves in (serving, later):
        serves.close()


def test_a_file_that_is_being_written_outlives_kill_9(filesystem: AtomicFS, tmp_path: Path) -> None:
    """A copy of the spool folder is what a killed process leaves."""

    def left(name: str) -> dict[str, int]:
        shutil.copytree(tmp_path / "spool", tmp_path / name)
        later = Serving(AtomicFS(), tmp_path / name)
        partials = later.tree.store.overlay.all()
        found = {partial.path: partial.size for partial in partials}
        assert all(partial.read(0, partial.size) == content[: partial.size] for partial in partials)
        later.close()
        return found

    serving = Serving(filesystem, tmp_path / "spool")
    client = serving.raw()
    content = os.urandom(3 * MIB)
    handle = client.opened("/f", W | C | T)
    for offset in range(0, len(content), MIB // 4):
        client.wait(client.write(handle, offset, content[offset : offset + MIB // 4]))
    assert left("written") == {"/f": 3 * MIB - 1}, "all but the last byte"
    noted = {file: file.stat().st_mtime_ns for file in (tmp_path / "spool").glob("*.json")}
    client.wait(client.write(handle, len(content), b"more"))
    content += b"more"
    assert left("written_on") == {"/f": 3 * MIB + 3}
    assert {file: file.stat().st_mtime_ns for file in noted} == noted, "a note in order is written once"
    assert client.wait(client.fsetstat(handle, size=3 * MIB)).ok
    client.wait(client.write(handle, 5 * MIB, b"after a gap"))
    assert left("with_a_gap") == {"/f": 3 * MIB - 1}
    assert client.wait(client.rename("/f", "/g")).ok
    assert left("renamed") == {"/g": 3 * MIB - 1}
    assert client.wait(client.fsetstat(handle, size=MIB)).ok
    assert left("truncated") == {"/g": MIB - 1}
    assert client.wait(client.close(handle)).ok
    assert list((tmp_path / "spool").iterdir()) == []
    serving.close()


def test_what_is_not_written_in_order_outlives_kill_9(
    filesystem: AtomicFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "NOTE_SECONDS", 0.0)
    content = os.urandom(6 * MIB)
    piece = MIB // 4
    serving = Serving(filesystem, tmp_path / "spool")
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    for offset in range(0, len(content), 2 * piece):
        for start in (offset + piece, offset):  # each two pieces the wrong way round
            assert client.wait(client.write(handle, start, content[start : start + piece])).ok
            if offset < MIB:
                continue  # in memory only
            shutil.copytree(tmp_path / "spool", tmp_path / "killed")
            later = Serving(AtomicFS(), tmp_path / "killed")
            for partial in later.tree.store.overlay.all():
                assert partial.read(0, partial.size) == content[: partial.size]
                assert partial.size < offset + 2 * piece, "the last byte is not there"
            if start == offset >= 3 * MIB:
                assert next(partial.size for partial in later.tree.store.overlay.all()) >= offset - MIB
            later.close()
            shutil.rmtree(tmp_path / "killed")
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == content
    serving.close()
