"""Names of a storage that folds case: a client may spell the same file differently from one request to the next."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from fs.errors import OperationFailed
from fs.path import iteratepath, join

from fs_dropbox.emulator import Emulator
from fs_dropbox.paths import key
from sftp_gateway.files.folding import fold_path
from sftp_gateway.sftp.packets import Status
from tests.sftp_gateway.conftest import ServeDropbox
from tests.sftp_gateway.files.essential_fs import Essential
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W, X
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually


@pytest.fixture
def serving(serve_dropbox: ServeDropbox) -> Serving:
    return serve_dropbox()


def test_letters_are_lowered_one_by_one_as_the_storage_does() -> None:
    """Of two names that it keeps apart, what is sent to one would go to the other else."""
    assert fold_path("/İ/Üi\u0307") == "/İ/üi\u0307"
    assert fold_path("/ΟΔΟΣ") == fold_path("/οδοσ") != fold_path("/οδος")
    letters = [letter for letter in map(chr, range(0x110000)) if unicodedata.ucd_3_2_0.category(letter)[0] == "L"]
    assert [letter for letter in letters if fold_path(f"/a{letter}") != key(f"/a{letter}")] == []


def test_a_file_being_written_is_found_in_every_spelling(client: RawClient) -> None:
    handle = client.opened("/Report.TXT", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    assert client.wait(client.stat("/report.txt")).attributes.size == 7
    assert client.wait(client.open("/REPORT.txt", W | C | X)).code == Status.FAILURE
    reading = client.opened("/report.TXT", R)
    assert client.wait(client.read(reading, 0, 100)).data == b"content"
    assert client.wait(client.remove("/report.txt")).ok
    assert not client.wait(client.close(handle)).ok
    assert client.wait(client.stat("/Report.TXT")).code == Status.NO_SUCH_FILE


def test_a_file_that_is_overwritten_in_another_spelling_is_listed_once(client: RawClient, emulator: Emulator) -> None:
    emulator.control.seed("/Report.TXT", b"old")
    handle = client.opened("/report.txt", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    listed = {name: found.size for name, found in client.list("/").items() if name not in (".", "..")}
    assert listed == {"Report.TXT": 7}
    assert client.wait(client.close(handle)).ok
    assert emulator.control.tree() == {"/Report.TXT": 7}


def test_requests_in_another_spelling_keep_their_place_behind_a_close(client: RawClient, emulator: Emulator) -> None:
    handle = client.opened("/Report.TXT", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    emulator.control.fault("files/upload", "stall", at="request")
    closing = client.close(handle)
    renaming = client.rename("/report.txt", "/Final.txt")
    looking = client.stat("/FINAL.TXT")
    eventually(lambda: emulator.control.faults_struck)
    assert not client.is_answered(renaming, within=0.1)
    emulator.control.release()
    assert [client.wait(request).ok for request in (closing, renaming)] == [True, True]
    assert client.wait(looking).attributes.size == 7
    assert emulator.control.read("/Final.txt") == b"content"


class Copying(Essential):
    """Folds case, and renames as PyFilesystem itself does: by a copy, and the removal of what was copied."""

    _meta = {"case_insensitive": True}
    refused: tuple[str, ...] = ()

    def _found(self, path: str) -> str:
        found = "/"
        for name in iteratepath(path):
            there = self._inner.listdir(found) if self._inner.isdir(found) else []
            found = join(found, next((each for each in there if each.lower() == name.lower()), name))
        return found

    def getinfo(self, path: str, namespaces: Any = None) -> Any:
        return super().getinfo(self._found(path), namespaces)

    def listdir(self, path: str) -> Any:
        return super().listdir(self._found(path))

    def makedir(self, path: str, permissions: Any = None, recreate: bool = False) -> Any:
        return super().makedir(self._found(path), permissions, recreate)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        if "w" in mode and path in self.refused:
            raise OperationFailed(path)
        return super().openbin(self._found(path), mode, buffering, **options)

    def remove(self, path: str) -> None:
        super().remove(self._found(path))

    def removedir(self, path: str) -> None:
        super().removedir(self._found(path))


def test_a_rename_to_another_case_loses_nothing_where_files_are_copied(tmp_path: Path) -> None:
    storage = Copying()
    with storage:
        storage.makedirs("/d/sub")
        storage.writebytes("/d/sub/file", b"content")
        serving = Serving(storage, tmp_path / "spool")
        client = serving.raw()
        assert client.wait(client.rename("/d", "/D")).ok
        assert client.wait(client.posix_rename("/D/Sub/File", "/D/Sub/FILE")).ok
        assert client.get("/d/sub/file") == b"content"
        assert (list(client.list("/")), list(client.list("/D/sub"))) == ([".", "..", "D"], [".", "..", "FILE"])
        storage.refused = ("/D/sub/file",)
        assert client.wait(client.rename("/D/sub/FILE", "/D/sub/file")).code == Status.FAILURE
        assert (client.get("/D/sub/FILE"), list(client.list("/D/sub"))) == (b"content", [".", "..", "FILE"])
        storage.refused = ("/D/sub/file", "/D/sub/FILE")
        reply = client.wait(client.rename("/D/sub/FILE", "/D/sub/file"))
        name = reply.text.rpartition(" ")[2]
        assert (reply.code, client.get(f"/D/sub/{name}")) == (Status.FAILURE, b"content")
        serving.close()
