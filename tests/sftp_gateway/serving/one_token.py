"""`Storage`: what credentials open, for logins by them."""

from __future__ import annotations

import threading

import fs.errors
from fs.base import FS
from fs.memoryfs import MemoryFS


class Storage:
    """A storage that knows one refresh token, and can be down."""

    def __init__(self) -> None:
        self.token = "TOKEN"
        self.down = False
        self.opened = 0
        self.slow = threading.Event()
        self.slow.set()

    def __call__(self, url: str) -> FS:
        assert url.startswith("dropbox://KEY~APPSECRET:")
        self.slow.wait(20)
        self.opened += 1
        if self.down:
            raise fs.errors.RemoteConnectionError(msg=f"no route to host for {url}")
        if f":{self.token}@" not in url:
            raise fs.errors.CreateFailed(f"the refresh token in {url} is invalid or revoked")
        return MemoryFS()
