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
        session_id, sent, content_hash = _parts(text)
        if not sent or sent % BLOCK_SIZE:
            raise ValueError(f"not the checkpoint of an upload: {text!r}")
        return cls(session_id, sent, content_hash)


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
        return cls(*_parts(text))


def _parts(text: str) -> tuple[str, int, str]:
    size, _, others = text.partition(":")
    content_hash, _, session_id = others.partition(":")
    if not (size.isdecimal() and len(content_hash) == HASH_LETTERS and session_id):
        raise ValueError(f"not the checkpoint of an upload: {text!r}")
    return session_id, int(size), content_hash
