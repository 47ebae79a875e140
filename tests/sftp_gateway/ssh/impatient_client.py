"""SFTP sessions that never wait long for the next byte: a program that tests of lost wake-ups run beside a gateway."""

from __future__ import annotations

import hashlib
import json
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko

from tests.sftp_gateway.client_program import arguments, run
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W

REKEY_BYTES = 2**20
SMALL = (0, 1, 100, 3_000, 40_000)
LARGE = (300_000, 2_000_000, 5_000_000)
WINDOWS = (64 * 1024, 256 * 1024, 2 * 2**20)
PIECE = 32_768
MOST_IN_FLIGHT = 48
LEAST_STEPS = 5


class Session:
    """One connection in a folder of its own. Every wait for an answer ends after `patience` seconds with an error."""

    def __init__(self, port: int, password: str, folder: str, seed: int, patience: float) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._patience = patience
        self._known: dict[str, bytes] = {}
        self._address = ("127.0.0.1", port)
        self._password = password
        self.done: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.problem = ""

    def run(self, until: float) -> None:
        transport = None
        try:
            transport = paramiko.Transport(self._address)
            transport.packetizer.REKEY_BYTES = self._random.choice((REKEY_BYTES, 2**40))
            transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = 120
            transport.connect(username="ann", password=self._password)
            channel = transport.open_session(window_size=self._random.choice(WINDOWS), timeout=120)
            channel.invoke_subsystem("sftp")
            self._client = RawClient(channel).init()
            self._client.wait(self._client.mkdir(self._folder), seconds=self._patience)
            self._put(self._random.choice(SMALL))
            while time.monotonic() < until or self.done.total() < LEAST_STEPS:
                step = self._random.choice(
                    ("small", "small", "large", "get", "get", "stall", "scatter", "list", "stats")
                )
                begun = time.monotonic()
                getattr(self, f"_{step}")()
                self.longest[step] = max(self.longest.get(step, 0.0), time.monotonic() - begun)
                self.done[step] += 1
        except Exception:  # noqa: BLE001 - whatever it is, it is what the test wants to know
            self.problem = f"{self._folder}: {traceback.format_exc()}"
        finally:
            if transport is not None:
                transport.close()

    # -- steps

    def _small(self) -> None:
        self._put(self._random.choice(SMALL))

    def _large(self) -> None:
        self._put(self._random.choice(LARGE))

    def _get(self) -> None:
        self._read(stall=0.0)

    def _stall(self) -> None:
        """Get a file, and take nothing now and then: the window fills, the server has to wait and go on."""
        self._read(stall=0.1)

    def _scatter(self) -> None:
        """Read at places all over a file, all asked for at once."""
        name, content = self._random.choice(sorted(self._known.items()))
        with self._opened(name, R) as handle:
            places = [self._random.randrange(len(content) + 1) for _ in range(MOST_IN_FLIGHT)]
            requests = [self._client.read(handle, place, 5_000) for place in places]
            for place, request in zip(places, requests, strict=True):
                expected = content[place : place + 5_000]
                reply = self._client.wait(request, seconds=self._patience)
                assert reply.data == expected if expected else reply.code == 1, (name, place, reply)

    def _list(self) -> None:
        assert set(self._client.list(self._folder)) - {".", ".."} == set(self._known)

    def _stats(self) -> None:
        for name, content in self._known.items():
            reply = self._client.wait(self._client.stat(f"{self._folder}/{name}"), seconds=self._patience)
            assert reply.attributes.size == len(content), (name, reply)

    # -- how

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[bytes]:
        reply = self._client.wait(self._client.open(f"{self._folder}/{name}", flags), seconds=self._patience)
        assert reply.handle, reply
        yield reply.handle
        reply = self._client.wait(self._client.close(reply.handle), seconds=self._patience)
        assert reply.ok, reply

    def _put(self, size: int) -> None:
        name = f"file {self._random.randrange(6)}"
        content = self._random.randbytes(size)
        with self._opened(name, W | C | T) as handle:
            waiting: list[int] = []
            for offset in range(0, size, PIECE):
                waiting.append(self._client.write(handle, offset, content[offset : offset + PIECE]))
                if len(waiting) > MOST_IN_FLIGHT:
                    assert self._client.wait(waiting.pop(0), seconds=self._patience).ok
            for request in waiting:
                assert self._client.wait(request, seconds=self._patience).ok
        self._known[name] = content

    def _read(self, *, stall: float) -> None:
        name, content = self._random.choice(sorted(self._known.items()))
        digest = hashlib.sha256()
        with self._opened(name, R) as handle:
            offsets = list(range(0, len(content) + 1, PIECE))
            waiting: list[int] = []
            while offsets or waiting:
                while offsets and len(waiting) < MOST_IN_FLIGHT:
                    waiting.append(self._client.read(handle, offsets.pop(0), PIECE))
                if stall and self._random.random() < 0.1:
                    time.sleep(self._random.random() * stall)
                digest.update(self._client.wait(waiting.pop(0), seconds=self._patience).data)
        assert digest.digest() == hashlib.sha256(content).digest(), f"{name} is not what was put"
        self._client.replies.clear()
        self._client.order.clear()


def main() -> None:
    parser = arguments()
    parser.add_argument("--patience", type=float, required=True)
    options = parser.parse_args()
    sessions = [
        Session(options.port, options.password, f"/{options.seed} {number}", options.seed + number, options.patience)
        for number in range(options.sessions)
    ]
    results = run(sessions, options.seconds)
    longest: dict[str, float] = {}
    for session in sessions:
        for step, seconds in session.longest.items():
            longest[step] = round(max(longest.get(step, 0.0), seconds), 2)
    print(json.dumps(results | {"longest": longest}))


if __name__ == "__main__":
    main()
