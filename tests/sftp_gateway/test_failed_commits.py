"""A CLOSE that cannot bring the whole file to the storage commits nothing of it; what was begun there is aborted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fs import errors

from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, RawClient, T, W, X
from tests.sftp_gateway.serving import Serving


@pytest.fixture
def filesystem() -> AtomicFS:
    return AtomicFS()


@pytest.fixture
def client(filesystem: AtomicFS, tmp_path: Path) -> Iterator[RawClient]:
    serving = Serving(filesystem, tmp_path / "spool")
    yield serving.raw()
    serving.close()


def test_a_storage_that_fails_amid_the_content(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"old")
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"new content")).ok
    filesystem.faults["write"] = errors.RemoteConnectionError("/f", msg="gone")
    assert "cannot be reached" in client.wait(client.close(handle)).text
    assert filesystem.happened("abort") == ["/f"]
    assert filesystem.commits == [("/f", 3, None)]
    assert filesystem.readbytes("/f") == b"old"


def test_old_content_that_cannot_be_fetched(client: RawClient, filesystem: AtomicFS) -> None:
    """What was written alone would be half of the file."""
    filesystem.commit("/f", b"0123456789")
    handle = client.opened("/f", W)
    assert client.wait(client.write(handle, 3, b"abc")).ok
    filesystem.faults["pread"] = errors.OperationTimeout("/f")
    assert "in time" in client.wait(client.close(handle)).text
    assert filesystem.happened("abort") == ["/f"]
    assert filesystem.commits == [("/f", 10, None)]
    assert filesystem.readbytes("/f") == b"0123456789"


def test_who_made_a_file_may_write_it_through_a_second_handle(client: RawClient, filesystem: AtomicFS) -> None:
    """Its creation was exclusive, and took place with the first CLOSE: what follows changes that version."""
    first = client.opened("/f", W | C | X)
    second = client.opened("/f", W)
    assert client.wait(client.write(first, 0, b"first")).ok
    assert client.wait(client.close(first)).ok
    assert filesystem.readbytes("/f") == b"first"
    assert client.wait(client.write(second, 5, b" second")).ok
    assert client.wait(client.close(second)).ok
    assert filesystem.readbytes("/f") == b"first second"


def test_a_close_after_one_that_failed_stores_the_file_or_says_why_not(client: RawClient, filesystem: AtomicFS) -> None:
    handles = [client.opened("/f", W | C | T), *(client.opened("/f", W) for _ in range(2))]
    assert client.wait(client.write(handles[0], 0, b"content")).ok
    filesystem.faults["commit"] = errors.RemoteConnectionError("/f", msg="gone")
    for handle in handles[:2]:
        assert "cannot be reached" in client.wait(client.close(handle)).text
    filesystem.faults.clear()
    assert client.wait(client.close(handles[2])).ok
    assert filesystem.readbytes("/f") == b"content"
