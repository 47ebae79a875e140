"""A storage that tells what of an upload it has, so that the gateway does not keep that as well."""

from __future__ import annotations

import random
from typing import Any

from fs import errors

from tests.sftp_gateway.atomic_fs import AtomicFS, PendingFile
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W
from tests.sftp_gateway.without_doors import Serving, spool_files
from tests.waiting import eventually

MIB = 2**20
PIECE = MIB // 4
QUOTA = 12 * MIB
CONTENT = random.Random(1).randbytes(24 * MIB)
ONLY_FORWARD = "from its start to its end alone"


class TellingFile(PendingFile):
    """Tells what of it is stored: everything, or as much as a test wants; and what an earlier one has stored."""

    known = 0

    def checkpoint(self) -> tuple[str, int] | None:
        filesystem = self._filesystem
        assert isinstance(filesystem, TellingFS)
        stored = max(self.known, min(len(self._content), filesystem.most_stored))
        return str(stored), stored


class TellingFS(AtomicFS):
    """A storage with resumed uploads, as far as they tell what is stored."""

    most_stored = 2**40
    remembers = True

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        resume = options.pop("resume", None)
        if resume is not None and not self.remembers:
            raise errors.OperationFailed(path, msg="nothing is known of that")
        file = super().openbin(path, mode, buffering, **options)
        if isinstance(file, PendingFile):
            file.__class__ = TellingFile
            file.known = int(resume or 0)  # type: ignore[attr-defined]
        return file


def on_disk(serving: Serving) -> int:
    return sum(file.stat().st_blocks * 512 for file in spool_files(serving))


def send(serving: Serving, client: RawClient, handle: bytes, content: bytes = CONTENT, start: int = 0) -> None:
    """Write from `start` to the end, one piece after the other, each when the storage has the one before."""
    for offset in range(start, len(content), PIECE):
        reply = client.wait(client.write(handle, offset, content[offset : offset + PIECE]))
        assert reply.ok, reply
        eventually(lambda: not any(draft.forwarding.lag for draft in serving.tree.store.overlay.all()))


def thinned(client: RawClient, serving: Serving, path: str = "/f") -> bytes:
    """Send more than there is room for; return the handle."""
    handle = client.opened(path, W | R | C | T)
    send(serving, client, handle)
    assert on_disk(serving) <= QUOTA < len(CONTENT)
    return handle
