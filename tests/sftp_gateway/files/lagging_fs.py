"""A storage that hangs, fails, takes a part and forgets when a test wants it: what an `AtomicFS` is on a bad day."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Any

from fs import errors
from fs.memoryfs import MemoryFS

from tests.sftp_gateway.atomic_fs import AtomicFS, PendingFile, super_read

DEADLINE_SECONDS = 3.0


@dataclass(frozen=True)
class Traits:
    """What a storage can do."""

    atomic: bool = True
    versions: bool = True
    resumes: bool = True  # checkpoints, and uploads that go on with them
    eager: bool = True  # writes without waiting


class LaggingFS(AtomicFS):
    """What other threads than the test's do hangs while it `lags`; `let_go` lets one of them pass."""

    def __init__(self, traits: Traits, chance: random.Random) -> None:
        super().__init__()
        self._meta: dict[str, Any] = {
            **MemoryFS._meta,
            "network": True,
            "atomic_writes": traits.atomic,
            "resumable_uploads": traits.resumes,
        }
        self.traits = traits
        self.chance = chance
        self.fault_rate = 0.0
        self.sent: dict[str, bytearray] = {}  # by the text of checkpoints
        self.generation = 0  # of the process that writes: what an earlier one still sends is lost
        self._test = threading.current_thread()
        self._door = threading.Condition()
        self._lags = False
        self._passing = 0
        self.hanging = 0
        self.steps = 0  # of the test: as long as it goes on, what hangs may do so

    # -- what tests do

    @property
    def lags(self) -> bool:
        return self._lags

    def lag(self, lags: bool) -> None:
        with self._door:
            self._lags = lags
            self._passing = 0
            self._door.notify_all()

    def let_go(self, count: int = 1) -> None:
        with self._door:
            self._passing = count
            self._door.notify_all()

    def content(self) -> dict[str, bytes]:
        return {path: super_read(self, path) for path in self.walk.files()}

    def change(self, path: str, content: bytes | None) -> None:
        """Do what somebody does who knows nothing of the gateway: replace a file, or remove it."""
        if content is None:
            MemoryFS.remove(self, path)
        else:
            super().commit(path, content)

    # -- the filesystem

    def passes(self, operation: str, path: str) -> None:
        if threading.current_thread() is not self._test and operation in ("open", "write", "commit"):
            with self._door:
                self.hanging += 1
                try:
                    steps = self.steps
                    while not self._door.wait_for(lambda: not self._lags or self._passing > 0, DEADLINE_SECONDS):
                        assert steps != self.steps, "what hangs here is waited for"
                        steps = self.steps
                    self._passing -= bool(self._passing)
                finally:
                    self.hanging -= 1
        if operation != "open":
            self.may_fail(operation, path)

    def may_fail(self, operation: str, path: str) -> None:
        if operation in ("open", "write", "write_now", "commit", "copy") and self.chance.random() < self.fault_rate:
            kind = self.chance.choice([errors.OperationFailed, errors.RemoteConnectionError, errors.ResourceError])
            raise kind(path, msg=f"{operation} failed")

    def movedir(self, src_path: str, dst_path: str, *args: Any, **options: Any) -> None:
        super().movedir(src_path, dst_path, *args, **options)
        with self._guard:
            for path in [path for path in self._versions if path.startswith(src_path + "/")]:
                self._versions[dst_path + path[len(src_path) :]] = self._versions.pop(path)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        resume = options.pop("resume", None)
        if not self.traits.atomic:
            self.passes("open", path)
            return MemoryFS.openbin(self, path, mode, buffering)
        if "r" not in mode:
            self.may_fail("open", path)
        file = super().openbin(path, mode, buffering, **options)
        if not isinstance(file, PendingFile):
            if not self.traits.versions:
                del file.version
            return file
        made: Any = file
        made.__class__ = EagerResumedFile if self.traits.eager else ResumedFile
        made.begin(resume)
        return made


class ResumedFile(PendingFile):
    """Goes on with what was stored of an earlier one, whatever the first bytes are that it is given."""

    _over: bool

    @property
    def storage(self) -> LaggingFS:
        assert isinstance(self._filesystem, LaggingFS)
        return self._filesystem

    def begin(self, resume: str | None) -> None:
        fs = self.storage
        self._generation = fs.generation
        self._fails_late = False
        self._skip = 0
        self._stored = 0  # for certain
        self._busy = threading.Lock()
        if resume is not None:
            text, _, count = resume.partition(":")
            if text not in fs.sent or int(count) > len(fs.sent[text]):
                raise errors.OperationFailed(self._path, msg="nothing is known of that")
            self._content = bytearray(fs.sent[text][: int(count)])
            self._skip = self._stored = int(count)
            self._fails_late = fs.chance.random() < 0.2
        self._text = f"u{len(fs.sent)}"
        fs.sent[self._text] = self._content

    def write(self, data: Any) -> int:
        self._filesystem.passes("write", self._path)
        self._add(data)
        return len(data)

    def _add(self, data: Any) -> None:
        assert self._busy.acquire(blocking=False), "two threads write at once"
        try:
            fresh = bytes(data)[self._skip :]
            self._skip -= len(data) - len(fresh)
            self._content += fresh
            chance = self.storage.chance.random()
            if chance < 0.5:
                self._stored = max(self._stored, len(self._content) - (0 if chance < 0.2 else int(chance * 20)))
        finally:
            self._busy.release()

    def checkpoint(self) -> tuple[str, int] | None:
        if not self.storage.traits.resumes or not self._stored:
            return None
        return f"{self._text}:{self._stored}", self._stored

    def close(self) -> None:
        fs = self.storage
        if not self._over:
            if self._fails_late:
                self._over = True
                raise errors.OperationFailed(self._path, msg="what it went on with is not there any more")
            if self._generation != fs.generation:
                self._over = True
                raise errors.OperationFailed(self._path, msg="its process was killed")
        super().close()


class EagerResumedFile(ResumedFile):
    def write_now(self, data: Any) -> bool:
        fs = self.storage
        if fs.lags or fs.chance.random() < 0.3:
            return False
        fs.may_fail("write_now", self._path)
        self._add(data)
        return True
