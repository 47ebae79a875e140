"""What is known of an upload session, as text that outlives the process: `Checkpoint`, `Staged`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fs_dropbox.content_hash import BLOCK_SIZE, ContentHash

HASH_LETTERS: Final = 2 * ContentHash.digest_size


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What of a file an upload session has for certain: its first `sent` bytes, and their content hash.

    Sessions live for seven days.
    """

    session_id: str
    sent: int
    content_hash: str

    def __str__(self) -> str:
        return f"{self.sent}:{self.content_hash}:{self.session_id}"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read what `str` wrote; raises ValueError."""
        sent, content_hash, session_id = text.split(":", 2)
        if not session_id or len(content_hash) != HASH_LETTERS or int(sent) % BLOCK_SIZE or int(sent) <= 0:
            raise ValueError(f"not a checkpoint: {text!r}")
        return cls(session_id, int(sent), content_hash)


@dataclass(frozen=True, slots=True)
class Staged:
    """A whole content in a closed upload session, which is committed once at most. Sessions live for seven days."""

    session_id: str
    size: int
    content_hash: str

    def __str__(self) -> str:
        return f"{self.size}:{self.content_hash}:{self.session_id}"

    @classmethod
    def parse(cls, text: str) -> Staged:
        """Read what `str` wrote; raises ValueError."""
        size, content_hash, session_id = text.split(":", 2)
        return cls(session_id, int(size), content_hash)
