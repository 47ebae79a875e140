"""What a CLOSE commits: the whole file where its path is by then, or nothing, and then what was begun is aborted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.memoryfs import MemoryFS

from sftp_gateway.files import notes
from sftp_gateway.files.draft import Draft
from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.files.tree import Tree, TreeLimits
from sftp_gateway.sftp.packets import NO_ATTRIBUTES
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W, X
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually


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


def test_what_is_cut_off_amid_a_commit_does_not_come_back(
    client: RawClient, filesystem: AtomicFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the file grows again."""
    first, second = client.opened("/f", W | C | T), client.opened("/f", W)
    assert client.wait(client.write(first, 0, b"content")).ok
    start_over = Draft._start_over

    def start_over_late(draft: Draft, size: int) -> None:
        draft.truncate(3)
        start_over(draft, size)

    monkeypatch.setattr(Draft, "_start_over", start_over_late)
    assert client.wait(client.close(first)).ok
    assert client.wait(client.fsetstat(second, size=5)).ok
    assert client.wait(client.close(second)).ok
    assert filesystem.readbytes("/f") == b"con\0\0"


def test_what_takes_the_place_of_what_was_just_stored_is_not_gone_on_with(
    client: RawClient, filesystem: AtomicFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, reader = client.opened("/f", W | C | T), client.opened("/f", W), client.opened("/f", R)
    assert client.wait(client.write(first, 0, b"content")).ok
    commit = filesystem.commit

    def commit_before_another(path: str, content: bytes, **options: Any) -> None:
        commit(path, content, **options)
        commit(path, b"their version")

    monkeypatch.setattr(filesystem, "commit", commit_before_another)
    assert client.wait(client.close(first)).ok
    assert "changed by someone else" in client.wait(client.write(second, 0, b"C")).text
    assert "changed by someone else" in client.wait(client.read(reader, 0, 100)).text
    assert not client.wait(client.close(second)).ok
    assert filesystem.readbytes("/f") == b"their version"


def test_a_close_that_waited_for_a_rename_has_the_new_path_to_itself(
    filesystem: AtomicFS, client: RawClient, serving: Serving
) -> None:
    filesystem.writebytes("/f", b"old")
    other, reader = serving.raw(), serving.raw()
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"new")).ok
    with ExitStack() as stack:
        with filesystem.stalled("move", "/f"):
            renaming = other.rename("/f", "/g")
            eventually(lambda: filesystem.happened("move") == ["/f"], "never: the rename runs")
            closing = client.close(handle)
            assert not client.is_answered(closing, within=0.1)
            stack.enter_context(filesystem.stalled("commit", "/g"))
        assert other.wait(renaming).ok
        eventually(lambda: "/g" in filesystem.happened("commit"), "never: the commit runs")
        reading = reader.open("/g", R)
        assert not reader.is_answered(reading, within=0.1), "it would read what is just being replaced"
    assert client.wait(closing).ok
    assert reader.wait(reader.read(reader.wait(reading).handle, 0, 10)).data == b"new"
    assert filesystem.listdir("/") == ["g"]


def test_what_is_committed_is_no_upload_that_was_cut_off(
    filesystem: AtomicFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another handle still has the file open, so its local bytes stay; after kill -9 they must not count."""
    monkeypatch.setattr(notes, "NOTE_BYTES", 100)
    spool = tmp_path / "notes"
    serving = Serving(filesystem, spool, limits=TreeLimits(spool_memory=10))
    try:
        client = serving.raw()
        handles = [client.opened("/f", W | C | T), client.opened("/f", W)]
        assert client.wait(client.write(handles[0], 0, bytes(1000))).ok
        assert list(spool.glob("*.json")), "it could be continued"
        assert client.wait(client.close(handles[0])).ok
        assert not list(spool.glob("*.json"))
        assert client.wait(client.close(handles[1])).ok
    finally:
        serving.close()


def test_a_file_that_was_cut_and_grows_again_has_zeros_there(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    for size in (3, 5):
        assert client.wait(client.fsetstat(handle, size=size)).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == b"con\0\0"


def test_what_another_session_writes_cannot_be_read_yet(client: RawClient, serving: Serving) -> None:
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    other = serving.raw()
    assert "still being written" in other.wait(other.open("/f", R)).text
    assert client.wait(client.close(handle)).ok
    assert other.get("/f") == b"content"


def test_an_exclusive_creation_replaces_nothing_where_commits_are_plain_uploads(tmp_path: Path) -> None:
    storage = MemoryFS()
    serving = Serving(storage, tmp_path)
    try:
        client = serving.raw()
        handle = client.opened("/f", W | C | X)
        assert client.wait(client.write(handle, 0, b"content")).ok
        storage.writebytes("/f", b"by somebody else")
        assert "exists" in client.wait(client.close(handle)).text
        assert storage.readbytes("/f") == b"by somebody else"
    finally:
        serving.close()


def test_who_opens_a_file_amid_its_commit_goes_on_over_what_that_has_stored(
    filesystem: AtomicFS, tmp_path: Path
) -> None:
    """Its OPEN began before the other's CLOSE, and had the user's directory measured first."""
    filesystem.commit("/f", b"0123456789")
    tree = Tree(filesystem, spool_directory=tmp_path)
    first = tree.view().open("/f", W, NO_ATTRIBUTES)
    limited = tree.view(quota=(1000, 0))
    assert isinstance(first, WriteHandle)
    first.write(0, b"first")
    with ThreadPoolExecutor() as threads:
        with filesystem.stalled("commit", "/f"):
            with filesystem.stalled("scandir", "/"):
                opening = threads.submit(limited.open, "/f", W, NO_ATTRIBUTES)
                eventually(lambda: filesystem.happened("scandir"), "never: the directory is measured")
                closing = threads.submit(first.close)
                eventually(lambda: "/f" in filesystem.happened("commit"), "never: the commit runs")
            with pytest.raises(TimeoutError):
                opening.result(0.1)
        closing.result()
        second = opening.result()
    assert isinstance(second, WriteHandle)
    second.write(8, b"second")
    second.close()
    assert filesystem.readbytes("/f") == b"first567second"
    tree.close()


def test_who_was_overtaken_while_its_close_waited_stores_nothing(filesystem: AtomicFS, tmp_path: Path) -> None:
    """What is there by then is half of another session's work."""
    tree = Tree(filesystem, spool_directory=tmp_path)
    store, first, second = tree.store, object(), object()
    draft = store.open_for_writing("/f", W | C | T, "session", first)
    draft.write(0, b"0123456789")
    store.open_for_writing("/f", W, "another session", second)
    draft.truncate(2)
    with pytest.raises(RefusedError, match="goes on with it"):
        store.commit(draft, first)
    assert not filesystem.exists("/f")
    draft.write(2, b"!")
    store.commit(draft, second)
    assert filesystem.readbytes("/f") == b"01!"
    tree.close()


def test_nobody_goes_on_with_a_file_amid_its_commit_although_another_handle_of_it_is_let_go(
    filesystem: AtomicFS, tmp_path: Path
) -> None:
    tree = Tree(filesystem, spool_directory=tmp_path)
    store, first, second = tree.store, object(), object()
    draft = store.open_for_writing("/f", W | C | T, "session", first)
    store.open_for_writing("/f", W, "session", second)
    draft.write(0, b"content")
    with ThreadPoolExecutor() as threads:
        with filesystem.stalled("commit", "/f"):
            closing = threads.submit(store.commit, draft, first)
            eventually(lambda: "/f" in filesystem.happened("commit"), "never: the commit runs")
            store.abandon(draft, second)
            assert not draft.join("another session", object())
        closing.result()
    assert filesystem.readbytes("/f") == b"content"
    assert not store.overlay.all()
    tree.close()


def test_what_waits_to_be_gone_on_with_is_not_looked_through_for_each_new_file(
    filesystem: AtomicFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand uploads that were cut off would cost each new one many times what it costs else."""
    tree = Tree(filesystem, spool_directory=tmp_path)
    partials, looks = tree.store.overlay.partials, []
    monkeypatch.setattr(tree.store.overlay, "partials", lambda: looks.append(1) or partials())
    for number in range(10):
        tree.view().open(f"/{number}", W | C | T, NO_ATTRIBUTES).close()
    assert len(looks) <= 1
    tree.close()
