"""AES-GCM packets: what we seal paramiko reads, what it seals we read, and nothing else is read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from paramiko.message import Message
from paramiko.packet import Packetizer

from sftp_gateway.ssh.sealing import LENGTH_BYTES, TAG_BYTES, Sealer, Unsealer

KEY = bytes(range(32))
NONCE = b"abcd" + (2**64 - 2).to_bytes(8, "big")  # the counter begins anew after two packets


class Theirs:
    """paramiko's packetizers, one that writes to the other's socket."""

    def __init__(self, nonce: bytes) -> None:
        self.near, self.far = socket.socketpair()
        self.near.settimeout(5)
        self.far.settimeout(5)
        self.packetizer = Packetizer(self.near)
        engine: Any = AESGCM(KEY)
        none: Any = None
        self.packetizer.set_outbound_cipher(engine, 16, none, 16, none, aead=True, iv_out=nonce)
        self.packetizer.set_inbound_cipher(engine, 16, none, 16, none, aead=True, iv_in=nonce)

    def close(self) -> None:
        self.packetizer.close()
        self.far.close()


@pytest.fixture
def theirs() -> Iterator[Theirs]:
    theirs = Theirs(b"abcd" + bytes(8))
    yield theirs
    theirs.close()


def sealed(sealer: Sealer, *pieces: bytes | memoryview) -> bytes:
    return b"".join(sealer.seal(pieces, sum(map(len, pieces))))


def unsealed(unsealer: Unsealer, packet: bytes) -> bytes:
    assert unsealer.size(bytearray(packet), 0) == len(packet)
    return bytes(unsealer.unseal(memoryview(packet)))


@pytest.mark.parametrize("size", [1, 2, 10, 11, 12, 15, 16, 17, 255, 32768, 35000])
def test_paramiko_reads_what_we_seal(theirs: Theirs, size: int) -> None:
    sealer = Sealer(AESGCM(KEY), b"abcd" + bytes(8))
    payload = b"\x5e" + os.urandom(size - 1)
    for _ in range(3):
        theirs.far.sendall(sealed(sealer, payload[: size // 2], memoryview(payload)[size // 2 :]))
        kind, message = theirs.packetizer.read_message()
        assert bytes([kind]) + message.asbytes() == payload


@pytest.mark.parametrize("size", [1, 2, 10, 11, 12, 15, 16, 17, 255, 20000])
def test_we_read_what_paramiko_seals(theirs: Theirs, size: int) -> None:
    unsealer = Unsealer(AESGCM(KEY), b"abcd" + bytes(8))
    payload = b"\x5e" + os.urandom(size - 1)
    for _ in range(3):
        theirs.packetizer.send_message(Message(payload))
        packet = theirs.far.recv(65536)
        assert unsealed(unsealer, packet) == payload


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8))
def test_packets_are_whole_blocks_with_padding_enough(payloads: list[bytes]) -> None:
    sealer, unsealer = Sealer(AESGCM(KEY), NONCE), Unsealer(AESGCM(KEY), NONCE)
    for payload in payloads:
        packet = sealed(sealer, payload)
        covered = len(packet) - LENGTH_BYTES - TAG_BYTES
        assert covered % 16 == 0
        assert 5 <= covered - len(payload) <= 20  # the padding and its length
        assert unsealed(unsealer, packet) == payload


def test_no_nonce_and_no_padding_is_used_twice() -> None:
    used: list[tuple[bytes, bytes]] = []

    class Watching:
        def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
            assert associated_data
            used.append((nonce, data[-data[0] :]))
            return data + bytes(TAG_BYTES)

        def decrypt(self, nonce: bytes, data: object, associated_data: object) -> bytes:
            raise NotImplementedError

    sealer = Sealer(Watching(), NONCE)
    for _ in range(2000):
        sealer.seal((b"x" * 12,), 12)
    assert len({nonce for nonce, _ in used}) == len(used)
    assert len({padding for _, padding in used}) > 0.99 * len(used)
    assert [int.from_bytes(nonce[4:], "big") for nonce, _ in used[:4]] == [2**64 - 2, 2**64 - 1, 0, 1]


@pytest.mark.parametrize("place", [0, 3, 4, 20, -1])
def test_a_changed_packet_is_refused(place: int) -> None:
    packet = bytearray(sealed(Sealer(AESGCM(KEY), NONCE), b"payload of a packet"))
    packet[place] ^= 1
    with pytest.raises(ValueError, match="tampered"):
        Unsealer(AESGCM(KEY), NONCE).unseal(memoryview(packet))


def test_a_packet_in_the_wrong_place_is_refused() -> None:
    sealer, unsealer = Sealer(AESGCM(KEY), NONCE), Unsealer(AESGCM(KEY), NONCE)
    first, second = sealed(sealer, b"one"), sealed(sealer, b"two")
    with pytest.raises(ValueError, match="tampered"):
        unsealer.unseal(memoryview(second))
    with pytest.raises(ValueError, match="tampered"):
        unsealer.unseal(memoryview(first))


@pytest.mark.parametrize("plain", [b"\x0f" + bytes(15), b"\x03" + bytes(15), b"\xff" + bytes(15)])
def test_padding_that_makes_no_sense_is_refused(plain: bytes) -> None:
    length = len(plain).to_bytes(4, "big")
    packet = length + AESGCM(KEY).encrypt(NONCE, plain, length)
    with pytest.raises(ValueError, match="padding"):
        Unsealer(AESGCM(KEY), NONCE).unseal(memoryview(packet))
