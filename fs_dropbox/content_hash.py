"""Dropbox's content hash with the interface of hashlib.

SHA-256 over the concatenated SHA-256 digests of the content's 4 MiB blocks.
Source: https://www.dropbox.com/developers/reference/content-hash
"""

from __future__ import annotations

import hashlib

BLOCK_SIZE = 4 * 1024 * 1024


class ContentHash:
    """A running content hash; not thread-safe."""

    name = "dropbox"
    digest_size = hashlib.sha256().digest_size
    block_size = BLOCK_SIZE

    def __init__(self, data: bytes | bytearray | memoryview = b"") -> None:
        self._digests = bytearray()  # of complete blocks
        self._block = hashlib.sha256()  # the block under way
        self._block_bytes = 0
        self.update(data)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes."""
        view = memoryview(data).cast("B")
        while view:
            part = view[: BLOCK_SIZE - self._block_bytes]
            self._block.update(part)
            self._block_bytes += len(part)
            view = view[len(part) :]
            if self._block_bytes == BLOCK_SIZE:
                self._digests += self._block.digest()
                self._block = hashlib.sha256()
                self._block_bytes = 0

    def digest(self) -> bytes:
        """Return the hash of the bytes so far; more may follow."""
        last = self._block.digest() if self._block_bytes else b""
        return hashlib.sha256(self._digests + last).digest()

    def hexdigest(self) -> str:
        """Return the hash as the API writes it."""
        return self.digest().hex()

    def beginning(self, size: int) -> str:
        """Return the hash, as the API writes it, of the first bytes: whole blocks of those that are here."""
        return hashlib.sha256(self._digests[: size // BLOCK_SIZE * self.digest_size]).hexdigest()

    def copy(self) -> ContentHash:
        """Return an independent hash in the same state."""
        clone = ContentHash()
        clone._digests = self._digests.copy()
        clone._block = self._block.copy()
        clone._block_bytes = self._block_bytes
        return clone
