"""Large bodies pass through in bounded memory, in both directions."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_dropbox.content_hash import ContentHash

from .process import Process

MIB = 1 << 20
APPEND_MIB = 120
APPENDS = 2
MEMORY_KIB = 120 * 1024  # less than a single body


def peak_memory_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "in a folder"])
def test_bodies_larger_than_its_memory_go_both_ways(tmp_path: Path, kept: bool) -> None:
    process = Process(*(["--folder", str(tmp_path)] if kept else []))
    process.sign_in()
    block = os.urandom(MIB)
    expected = ContentHash()

    def body() -> Iterator[bytes]:
        for number in range(APPEND_MIB):
            part = block[number:] + block[:number]
            expected.update(part)
            yield part

    session = process.call("files/upload_session/start", {}, b"")["session_id"]
    for number in range(APPENDS):
        cursor = {"session_id": session, "offset": number * APPEND_MIB * MIB}
        process.call("files/upload_session/append_v2", {"cursor": cursor}, body())  # type: ignore[arg-type]
    total = APPENDS * APPEND_MIB * MIB
    finish = {"cursor": {"session_id": session, "offset": total}, "commit": {"path": "/big"}}
    metadata = process.call("files/upload_session/finish", finish, b"")
    assert (metadata["size"], metadata["content_hash"]) == (total, expected.hexdigest())

    headers = {"Authorization": f"Bearer {process.token}", "Dropbox-API-Arg": '{"path":"/big"}'}
    url = f"{process.url}/2/files/download"
    received = ContentHash()
    with process.http.post(url, headers=headers, verify=process.ca_file, stream=True, timeout=60) as response:
        for part in response.iter_content(MIB):
            received.update(part)
    assert received.hexdigest() == expected.hexdigest()
    assert peak_memory_kib(process.process.pid) < MEMORY_KIB
    assert process.end(signal.SIGTERM) == 0
