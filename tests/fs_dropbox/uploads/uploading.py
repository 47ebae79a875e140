"""Content to upload, and the routes that take it."""

from __future__ import annotations

import random
from typing import Any

from fs_dropbox.api.client import Commit
from fs_dropbox.uploads.upload import Uploader

START = "files/upload_session/start"
APPEND = "files/upload_session/append_v2"
FINISH = "files/upload_session/finish"


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def put(uploader: Uploader, path: str, data: bytes, piece: int = 300_000, **arguments: Any) -> Any:
    upload = uploader.open(Commit(path, arguments.pop("mode", "overwrite"), **arguments))
    for start in range(0, len(data), piece):
        upload.write(memoryview(data)[start : start + piece])
    assert upload.bytes_written == len(data)
    return upload.commit()
