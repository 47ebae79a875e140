"""Many SFTP sessions that do mixed work and check what they get: a program that load tests run several times."""

from __future__ import annotations

import hashlib
import json
import random
import time
import traceback
from collections import Counter

import paramiko

from tests.sftp_gateway.client_program import arguments, run

SIZES = (0, 10, 1_000, 30_000, 300_000, 2_000_000)


class Worker:
    """One session in a folder of its own, which knows what must be there."""

    def __init__(self, port: int, password: str, name: str, seed: int) -> None:
        self._port = port
        self._password = password
        self._folder = f"/{name}"
        self._random = random.Random(seed)
        self._known: dict[str, str] = {}
        self._transport: paramiko.Transport | None = None
        self.done: Counter[str] = Counter()
        self.problem = ""

    def run(self, until: float) -> None:
        try:
            self._connect()
            self._sftp.mkdir(self._folder)
            while time.monotonic() < until:
                step = self._random.choice(
                    ["put", "put", "get", "get", "list", "stat", "stat", "rename", "remove", "absent", "reconnect"]
                )
                getattr(self, f"_{step}")()
                self.done[step] += 1
                time.sleep(self._random.random() * 0.2)
            for name in list(self._known):
                self._get(name)
        except Exception:  # noqa: BLE001 - whatever it is, it is what the test wants to know
            self.problem = f"{self._folder}: {traceback.format_exc()}"
        finally:
            if self._transport is not None:
                self._transport.close()

    def _connect(self) -> None:
        self._transport = paramiko.Transport(("127.0.0.1", self._port))
        self._transport.banner_timeout = self._transport.auth_timeout = self._transport.handshake_timeout = 120
        self._transport.connect(username="ann", password=self._password)
        client = paramiko.SFTPClient.from_transport(self._transport)
        assert client is not None
        self._sftp = client

    def _reconnect(self) -> None:
        assert self._transport is not None
        self._transport.close()
        self._connect()

    def _any(self) -> str | None:
        return self._random.choice(sorted(self._known)) if self._known else None

    def _put(self) -> None:
        name = f"file {self._random.randrange(8)}"
        content = self._random.randbytes(self._random.choice(SIZES))
        with self._sftp.open(f"{self._folder}/{name}", "wb") as file:
            file.set_pipelined(True)
            file.write(content)
        self._known[name] = hashlib.sha256(content).hexdigest()

    def _get(self, name: str | None = None) -> None:
        name = name or self._any()
        if name is not None:
            with self._sftp.open(f"{self._folder}/{name}", "rb") as file:
                file.prefetch()
                content = file.read()
            assert hashlib.sha256(content).hexdigest() == self._known[name], f"{name} is not what was put"

    def _list(self) -> None:
        assert sorted(self._sftp.listdir(self._folder)) == sorted(self._known)

    def _stat(self) -> None:
        name = self._any()
        if name is not None:
            self._sftp.stat(f"{self._folder}/{name}")

    def _rename(self) -> None:
        name = self._any()
        if name is not None:
            target = f"file {self._random.randrange(8)}"
            self._sftp.posix_rename(f"{self._folder}/{name}", f"{self._folder}/{target}")
            self._known[target] = self._known.pop(name)

    def _remove(self) -> None:
        name = self._any()
        if name is not None:
            self._sftp.remove(f"{self._folder}/{name}")
            del self._known[name]

    def _absent(self) -> None:
        try:
            self._sftp.stat(f"{self._folder}/nothing")
        except FileNotFoundError:
            return
        raise AssertionError("there is nothing")


def main() -> None:
    options = arguments().parse_args()
    workers = [
        Worker(options.port, options.password, f"client {options.seed} {number}", options.seed + number)
        for number in range(options.sessions)
    ]
    print(json.dumps(run(workers, options.seconds)))


if __name__ == "__main__":
    main()
