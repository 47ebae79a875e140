"""What tests of write-back share: filesystems, a journal before them, sessions on both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import paramiko
import pytest
from fs import errors
from fs.base import FS
from fs.path import dirname

from sftp_gateway.files.folding import fold_path
from sftp_gateway.files.tree import Rights
from sftp_gateway.write_back.between import WriteBackLimits
from sftp_gateway.write_back.filesystem import WriteBackFS
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_rows import Pending
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.without_doors import Serving, Session
from tests.waiting import eventually

DEADLINE_SECONDS = 20.0


class RemoteFS(AtomicFS):
    """An `AtomicFS` that refuses paths, loses answers, and is unreachable when a test wants that."""

    def __init__(self) -> None:
        super().__init__()
        self._meta = {**self._meta, "case_insensitive": True}
        self.refused: dict[str, Exception] = {}
        self.lost: set[str] = set()  # paths whose next commit takes place although an error is told
        self.reachable = threading.Event()
        self.reachable.set()

    def commit(self, path: str, content: bytes, **options: Any) -> None:
        self.passes("arrival", path)
        if not self.reachable.is_set():
            raise errors.RemoteConnectionError(path, msg="the storage cannot be reached")
        if path in self.refused:
            raise self.refused[path]
        super().commit(path, content, **options)
        if path in self.lost:
            self.lost.remove(path)
            raise errors.RemoteConnectionError(path, msg="the answer was lost")


class StagedFS(RemoteFS):
    """A `RemoteFS` to which content is sent ahead. What is lost with an answer may be asked for again, as anything."""

    def __init__(self) -> None:
        super().__init__()
        self._meta = {**self._meta, "staged_uploads": True}
        self._staged: dict[str, bytes] = {}
        self._stored: set[str] = set()

    def stage_files(
        self, sources: Iterable[tuple[Callable[[], BinaryIO], int]]
    ) -> Iterator[tuple[int, str | Exception]]:
        for index, (open_file, size) in enumerate(sources):
            with open_file() as file:
                content = file.read()
            assert len(content) == size
            token = f"token {len(self._staged)}"
            self._staged[token] = content
            yield index, token

    def commit_files(
        self, files: Iterable[tuple[str, str, datetime, str | None]]
    ) -> Iterator[tuple[int, bool | Exception]]:
        files = list(files)
        if len(files) > 1:
            self.passes("bulk", str(len(files)))
        for index, (path, token, modified, expected) in enumerate(files):
            if token in self._stored or token not in self._staged:
                yield index, token in self._stored
                continue
            is_lost = path in self.lost
            try:
                self.makedirs(dirname(path), recreate=True)
                self.commit(
                    path,
                    self._staged[token],
                    modified=modified,
                    exclusive=expected == "",
                    expected_version=expected or None,
                )
            except errors.FSError as error:
                if is_lost and path not in self.lost:
                    self._stored.add(token)
                yield index, error
            else:
                self._stored.add(token)
                yield index, True


class WriteBack(Serving):
    """Sessions of a user with write-back over a filesystem; `kill` and a second one are a restart after kill -9."""

    def __init__(self, filesystem: FS, folder: Path, **limits: Any) -> None:
        settings = {"delay_seconds": 0.0, "wait_seconds": 10.0, **limits}
        self.journal = Journal(folder / "journal", fold=fold_path)
        unclosed: Any = Unclosed(filesystem)
        self.written_back = WriteBackFS(unclosed, self.journal, label="ann", limits=WriteBackLimits(**settings))
        super().__init__(self.written_back, folder / "spool")
        self._clients: list[paramiko.SFTPClient] = []

    def session(self, root: str = "/", *, rights: Rights = Rights.READ_WRITE, write_back: bool = True) -> Session:
        session = super().session(root, rights=rights)
        session.view.write_back = write_back
        return session

    def client(self, *, write_back: bool = True) -> paramiko.SFTPClient:
        return self.session(write_back=write_back).sftp()

    def close(self) -> None:
        super().close()
        self.written_back.close()

    def pending(self) -> list[Pending]:
        return self.journal.all()

    def settled(self) -> None:
        eventually(lambda: not self.journal.is_live("/"), "what was acknowledged is not delivered")


class Unclosed:
    """A filesystem that outlives who closes it."""

    def __init__(self, filesystem: FS) -> None:
        self._filesystem = filesystem

    def __getattr__(self, name: str) -> Any:
        return getattr(self._filesystem, name)

    def close(self) -> None:
        pass


def put(client: paramiko.SFTPClient, path: str, content: bytes, mode: str = "w") -> None:
    with client.open(path, mode) as file:
        file.write(content)


def get(client: paramiko.SFTPClient, path: str) -> bytes:
    with client.open(path, "r") as file:
        return file.read()


# For tests whose fixture `storage` is of either class.
staged_too = pytest.mark.parametrize("storage", [RemoteFS, StagedFS], indirect=True)


def events(serving: WriteBack) -> list[tuple[str, ...]]:
    return [event for session in serving.sessions for event in session.events.others]
