"""What a client has open, where one handle's end meets another's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.memoryfs import MemoryFS

from sftp_gateway.files.base import Base
from sftp_gateway.files.content import Content
from sftp_gateway.files.handles import ReadHandle
from sftp_gateway.files.store import Store, TreeLimits
from sftp_gateway.files.tree import Tree, TreeView
from sftp_gateway.sftp.packets import NO_ATTRIBUTES, Kind
from sftp_gateway.sftp.parsing import Request
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, R, T, W
from tests.sftp_gateway.without_doors import Serving, operations_on


@pytest.fixture
def view(tmp_path: Path) -> Iterator[TreeView]:
    tree = Tree(AtomicFS(), spool_directory=tmp_path)
    yield tree.view()
    tree.close()


def test_a_file_that_is_opened_anew_while_its_handle_is_closed_does_not_stay_open(
    view: TreeView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CLOSE of who wrote it and that of who reads it are carried out at the same time."""
    opened: list[Content] = []

    def reopen(path: str) -> Content:
        reader.close()
        opened.append(open_committed(path))
        return opened[-1]

    writer = view.open("/f", W | C | T, NO_ATTRIBUTES)
    reader = view.open("/f", R, NO_ATTRIBUTES)
    open_committed = view.store.open_committed
    monkeypatch.setattr(view.store, "open_committed", reopen)
    writer.close()
    assert [content._file.closed for content in opened] == [True]


def test_what_was_removed_while_it_is_read_is_told_of_by_its_handle(tmp_path: Path) -> None:
    filesystem = AtomicFS()
    filesystem.writebytes("/f", b"content")
    serving = Serving(filesystem, tmp_path)
    try:
        client = serving.raw()
        reader = client.opened("/f", R)
        filesystem.remove("/f")
        assert client.wait(client.fstat(reader)).attributes.size == 7
    finally:
        serving.close()


def test_a_close_is_ok_although_who_reads_the_file_cannot_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = AtomicFS()
    serving = Serving(filesystem, tmp_path)
    try:
        client = serving.raw()
        writer, reader = client.opened("/f", W | C | T), client.opened("/f", R)
        assert client.wait(client.write(writer, 0, b"content")).ok

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(Content, "__init__", refuse)
            assert client.wait(client.close(writer)).ok
        assert (
            client.wait(client.read(reader, 0, 100)).text == "/f: the file was closed"
        )  # who opens it anew may find another version
        assert filesystem.readbytes("/f") == b"content"
    finally:
        serving.close()


@pytest.mark.parametrize("then", ["overwritten", "renamed"])
def test_who_reads_what_is_written_goes_on_with_that_and_with_nothing_later(tmp_path: Path, then: str) -> None:
    """On another channel than that of who writes it."""
    serving = Serving(AtomicFS(), tmp_path)
    try:
        session, other = serving.session(), serving.raw()
        client, looking = session.raw(), session.raw()
        writer = client.opened("/f", W | C | T)
        assert client.wait(client.write(writer, 0, b"version 1")).ok
        reader = looking.opened("/f", R)
        assert looking.wait(looking.read(reader, 0, 4)).data == b"vers"
        assert client.wait(client.close(writer)).ok
        if then == "renamed":
            assert other.wait(other.rename("/f", "/g")).ok
        other.put("/f", b"their version")
        assert looking.wait(looking.read(reader, 4, 100)).data == b"ion 1"
        assert looking.wait(looking.fstat(reader)).attributes.size == 9
    finally:
        serving.close()


def test_who_reads_what_was_opened_for_writing_and_not_written_reads_on(
    view: TreeView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although another version, or the same one under another name, has taken its place by the CLOSE."""
    opened: list[Content] = []
    open_committed = view.store.open_committed
    monkeypatch.setattr(
        view.store,
        "open_committed",
        lambda path: opened.append(open_committed(path)) or opened[-1],
    )
    view.store.filesystem.writebytes("/f", b"version 1")
    writer = view.open("/f", W, NO_ATTRIBUTES)
    readers = [view.open("/f", R, NO_ATTRIBUTES) for _ in range(2)]
    view.store.filesystem.writebytes("/f", b"another version")
    writer.close()
    for reader in readers:
        assert isinstance(reader, ReadHandle)
        assert reader.read(0, 100) == b"version 1"
        assert reader.attributes().size == 9
        reader.close()
        reader.abort()
    assert [content._file.closed for content in opened] == [True]


def test_renames_that_fail_pile_up_nothing(view: TreeView) -> None:
    operations = operations_on(view)
    operations.answer(Request(Kind.OPEN, 1, path="/f", flags=W | C | T))
    (handle,) = operations.handles.values()
    before = _paths(handle)
    for number in range(1000):
        operations.claims(Request(Kind.RENAME, number, path="/f", target=f"/missing/{number}"))
    assert before == ["/f"]
    assert len(_paths(handle)) < 500
    operations.abort_all()


def _paths(handle: Any) -> list[str]:
    return list(handle.paths)


@pytest.mark.parametrize("then", ["write", "cut"])
def test_what_is_changed_while_old_content_is_brought_along_stays_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """One handle's CLOSE is carried out while another of the same session goes on with the file."""
    filesystem = MemoryFS()
    filesystem.writebytes("/f", b"0123456789")
    store = Store(filesystem, spool_directory=tmp_path, limits=TreeLimits())
    session, first, second = object(), object(), object()
    draft = store.open_for_writing("/f", W, session, first)
    assert store.open_for_writing("/f", W, session, second) is draft
    draft.write(0, b"A")
    pread = Base.pread

    def pread_slowly(base: Base, start: int, end: int) -> bytes:
        monkeypatch.undo()
        piece = pread(base, start, end)
        if then == "write":
            draft.write(5, b"B")
        else:
            draft.truncate(5)
        return piece

    monkeypatch.setattr(Base, "pread", pread_slowly)
    store.commit(draft, first)
    if then == "cut":
        draft.truncate(10)
    store.commit(draft, second)
    assert filesystem.readbytes("/f") == (b"A1234B6789" if then == "write" else b"A1234" + bytes(5))
    store.close()


@pytest.mark.parametrize(("size", "results"), [(0, []), (5, ["aborted"]), (10, ["ok"])])
def test_a_download_whose_client_leaves_is_complete_if_its_end_was_read(
    tmp_path: Path, size: int, results: list[str]
) -> None:
    filesystem = AtomicFS()
    filesystem.writebytes("/f", b"0123456789")
    serving = Serving(filesystem, tmp_path)
    session = serving.session()
    client = session.raw()
    unread = client.opened("/f", R)
    assert client.wait(client.close(unread)).ok
    handle = client.opened("/f", R)
    if size:
        assert len(client.wait(client.read(handle, 0, size)).data) == size
    session.cut()
    assert [(transfer.result, transfer.size) for transfer in session.events.transfers] == [
        (result, size) for result in results
    ]
    serving.close()
