"""Whatever a client sends, the server lives on and leaves nothing behind."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from fs.memoryfs import MemoryFS

from sftp_gateway.packets import Kind, PacketError, parse
from sftp_gateway.tree import TreeLimits
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import RawClient, s
from tests.sftp_gateway.serving import Serving

PACKETS = 6000
NAMES = ["/", "/a", "/b", "/d", "/d/e", "/d/../a", "", ".", "..", "/\N{GRINNING FACE}", "/x" * 50, "~", "/a/b/c"]
EXTENSIONS = [
    "posix-rename@openssh.com", "statvfs@openssh.com", "fstatvfs@openssh.com", "limits@openssh.com",
    "fsync@openssh.com", "expand-path@openssh.com", "home-directory", "copy-data", "hardlink@openssh.com", "",
]  # fmt: skip
NUMBERS = [0, 1, 2, 7, 255, 4096, 2**31 - 1, 2**31, 2**32 - 1]
LARGE = [0, 1, 5, 100, 70_000, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


class Fuzzer:
    """Makes packets that are valid, nearly valid, or nonsense."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def packet(self) -> bytes:
        choice = self.random.random()
        if choice < 0.05:
            return self.random.randbytes(self.random.randrange(5, 60))
        packet = self.request()
        if choice < 0.35:
            return self.mutated(packet)
        return packet

    def request(self) -> bytes:
        kind = self.random.choice([*range(3, 21), *range(3, 21), Kind.EXTENDED, Kind.EXTENDED, 0, 99])
        head = bytes([kind]) + struct.pack(">I", self.random.choice(NUMBERS))
        if kind == Kind.EXTENDED:
            head += s(self.random.choice(EXTENSIONS))
        return head + b"".join(self.field(kind) for _ in range(self.random.randrange(5)))

    def field(self, kind: int) -> bytes:
        if kind in (Kind.CLOSE, Kind.READ, Kind.WRITE, Kind.FSTAT, Kind.FSETSTAT, Kind.READDIR):
            make = self.random.choice([self.handle, self.handle, self.large, self.small, self.blob])
        else:
            make = self.random.choice([self.name, self.name, self.small, self.handle, self.large, self.blob])
        return make()

    def handle(self) -> bytes:
        return s(struct.pack(">I", self.random.randrange(1, 30)))

    def name(self) -> bytes:
        return s(self.random.choice(NAMES))

    def small(self) -> bytes:
        return struct.pack(">I", self.random.choice(NUMBERS))

    def large(self) -> bytes:
        return struct.pack(">Q", self.random.choice(LARGE))

    def blob(self) -> bytes:
        return s(self.random.randbytes(self.random.randrange(100)))

    def mutated(self, packet: bytes) -> bytes:
        raw = bytearray(packet)
        for _ in range(self.random.randrange(1, 5)):
            raw[self.random.randrange(len(raw))] = self.random.randrange(256)
        return bytes(raw[: self.random.randrange(5, len(raw) + 1)]) if self.random.random() < 0.3 else bytes(raw)


def test_the_parser_raises_nothing_else() -> None:
    fuzzer = Fuzzer(1)
    for _ in range(20_000):
        try:
            parse(fuzzer.packet())
        except PacketError:
            continue


def test_the_server_survives_nonsense(tmp_path: Path) -> None:
    for number, filesystem in enumerate((MemoryFS(), AtomicFS(usage={"total": 10, "used": 5}))):
        filesystem.makedirs("/d")
        filesystem.writebytes("/a", b"x" * 1000)
        folder = tmp_path / str(number)
        serving = Serving(filesystem, folder, limits=TreeLimits(spool_quota=10**6, commit_wait_seconds=1.0))
        fuzzer = Fuzzer(number)
        session = serving.session()
        client = session.bare().init()
        for sent in range(PACKETS // 2):
            try:
                client.send_packet(fuzzer.packet())
                if sent % 20 == 0:
                    _drain(client)
            except (OSError, EOFError):  # a channel may be closed over bytes that make no sense
                client = session.bare().init()
        other = serving.raw()
        assert other.wait(other.stat("/")).kind == Kind.ATTRS
        assert not [entry for entry in session.events.others if "internal error" in entry[-1]]
        serving.close()
        kept = {path.stem for path in folder.iterdir() if path.suffix == ".json"} if folder.exists() else set()
        left = {path.stem for path in folder.iterdir() if path.suffix == ".spool"} if folder.exists() else set()
        assert left == kept
        assert serving.tree.store.overlay.all() == []


def _drain(client: RawClient) -> None:
    """Take what has come, so that the server goes on."""
    client.channel.settimeout(0.01)
    try:
        while client.channel.recv(2**20):
            pass
    except TimeoutError:
        pass
