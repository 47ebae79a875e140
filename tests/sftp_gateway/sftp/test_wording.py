"""Clients that take a reason's text for what it means."""

from __future__ import annotations

import paramiko
import pytest
from fs.memoryfs import MemoryFS

from tests.sftp_gateway.raw_client import RawClient
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import DEADLINE_SECONDS


@pytest.fixture
def filesystem() -> MemoryFS:
    return MemoryFS()


@pytest.mark.parametrize(
    ("version", "words"), [("ssh2js1.17.0", "No such file"), ("other", "/no/new: the parent directory does not exist")]
)
def test_node_ssh_is_told_of_what_is_missing_in_the_words_that_it_knows(
    serving: Serving, version: str, words: str
) -> None:
    """It makes the folders above a file after "No such file" alone, whatever the status says."""
    with paramiko.Transport(("127.0.0.1", serving.listen())) as client:
        client.local_version = f"SSH-2.0-{version}"
        client.start_client(timeout=DEADLINE_SECONDS)
        client.auth_password("someone", "secret")
        channel = client.open_session(timeout=DEADLINE_SECONDS)
        channel.invoke_subsystem("sftp")
        raw = RawClient(channel).init()
        assert raw.wait(raw.mkdir("/no/new")).text == words
    client.join(DEADLINE_SECONDS)
