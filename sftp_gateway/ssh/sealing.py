"""AES-GCM for SSH packets (RFC 5647), with each byte moved once: the cipher of most sessions.

paramiko's own code copies every packet five times; nearly all clients support AES-GCM, so this is worth a module.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag

TAG_BYTES: Final = 16
LENGTH_BYTES: Final = 4
_BLOCK_BYTES: Final = 16
_LEAST_PADDING: Final = 4
_RANDOM_BYTES: Final = 4096
_HEAD: Final = struct.Struct(">IB")
_NONCE: Final = struct.Struct(">4sQ")  # RFC 5647, section 7.1: a fixed part, and a counter of packets
_MOST_COUNT: Final = 2**64 - 1
_LENGTH: Final = struct.Struct(">I")

Piece = bytes | memoryview


class Engine(Protocol):
    """The part of `cryptography`'s AESGCM that is used here."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """Return the encrypted data, with its tag."""

    def decrypt(self, nonce: bytes, data: Piece, associated_data: Piece) -> bytes:
        """Return the decrypted data; raises if the tag is wrong."""


class Sealer:
    """Turns payloads into packets, under one key. Not thread-safe."""

    __slots__ = ("_count", "_engine", "_fixed", "_random", "_taken")

    def __init__(self, engine: Engine, first_nonce: bytes) -> None:
        self._engine = engine
        self._fixed, self._count = _NONCE.unpack(first_nonce)
        self._random = b""
        self._taken = 0

    def seal(self, pieces: Iterable[Piece], size: int) -> tuple[bytes, bytes]:
        """Return the packet with `pieces`, `size` bytes in total, in two parts: its length and the sealed rest."""
        padding = _BLOCK_BYTES - (size + 1) % _BLOCK_BYTES
        if padding < _LEAST_PADDING:
            padding += _BLOCK_BYTES
        head = _HEAD.pack(1 + size + padding, padding)
        length = head[:LENGTH_BYTES]
        plain = b"".join((head[LENGTH_BYTES:], *pieces, self._pad(padding)))
        nonce = _NONCE.pack(self._fixed, self._count)
        self._count = (self._count + 1) & _MOST_COUNT
        return length, self._engine.encrypt(nonce, plain, length)

    def _pad(self, count: int) -> bytes:
        """Return random bytes from a stock: asking the system for so few each time would be expensive."""
        start = self._taken
        if start + count > len(self._random):
            self._random, start = os.urandom(_RANDOM_BYTES), 0
        self._taken = start + count
        return self._random[start : self._taken]


class Unsealer:
    """Extracts payloads from packets, under one key. Not thread-safe."""

    __slots__ = ("_count", "_engine", "_fixed")

    def __init__(self, engine: Engine, first_nonce: bytes) -> None:
        self._engine = engine
        self._fixed, self._count = _NONCE.unpack(first_nonce)

    @staticmethod
    def size(received: bytearray, start: int) -> int:
        """Return the total size in bytes of the packet whose length field is at `start`."""
        length: int = _LENGTH.unpack_from(received, start)[0]
        return LENGTH_BYTES + length + TAG_BYTES

    def unseal(self, packet: memoryview) -> memoryview:
        """Return the payload of a whole packet; raises ValueError if it was tampered with or makes no sense."""
        nonce = _NONCE.pack(self._fixed, self._count)
        self._count = (self._count + 1) & _MOST_COUNT
        try:
            plain = self._engine.decrypt(nonce, packet[LENGTH_BYTES:], packet[:LENGTH_BYTES])
        except InvalidTag:
            raise ValueError("a packet was tampered with") from None
        padding = plain[0]
        end = len(plain) - padding
        if padding < _LEAST_PADDING or end < 2:
            raise ValueError("a packet of nothing but padding")
        return memoryview(plain)[1:end]
