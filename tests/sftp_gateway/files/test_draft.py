"""A draft holds what a file on a local disk would hold after the same calls, and commits exactly that."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from fs.memoryfs import MemoryFS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftp_gateway.files import forwarding
from sftp_gateway.files.store import Store, TreeLimits
from sftp_gateway.sftp.packets import OpenFlag
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import AtomicFS

SPACE = 120
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, SPACE), st.binary(max_size=30)),
        st.tuples(st.just("append"), st.just(0), st.binary(max_size=30)),
        st.tuples(st.just("truncate"), st.integers(0, SPACE), st.just(b"")),
        st.tuples(st.just("read"), st.integers(0, SPACE), st.just(b"")),
        st.tuples(st.just("commit"), st.just(0), st.just(b"")),
    ),
    max_size=25,
)


class Model:
    """The same file as a bytearray."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)

    def write(self, offset: int, data: bytes) -> None:
        if data:
            self.content.extend(bytes(max(0, offset - len(self.content))))
            self.content[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))


@pytest.mark.parametrize("kind", [MemoryFS, AtomicFS])
@given(base=st.one_of(st.none(), st.binary(max_size=SPACE)), moves=steps, stream_from=st.sampled_from([10, 10**6]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_draft_agrees_with_a_model(
    tmp_path: Path, kind: Any, base: bytes | None, moves: list[tuple[str, int, bytes]], stream_from: int
) -> None:
    before, forwarding.STREAM_FROM_BYTES = forwarding.STREAM_FROM_BYTES, stream_from
    try:
        filesystem = kind()
        if base is not None:
            filesystem.writebytes("/f", base)
        store = Store(filesystem, spool_directory=tmp_path, limits=TreeLimits(spool_memory=40))
        handle, other = object(), object()
        draft = store.open_for_writing("/f", OpenFlag.WRITE | OpenFlag.CREAT, "session", handle)
        model = Model(base or b"")
        for move, number, data in moves:
            if move == "write":
                draft.write(number, data)
                model.write(number, data)
            elif move == "append":
                draft.write(None, data)
                model.write(len(model.content), data)
            elif move == "truncate":
                draft.truncate(number)
                model.truncate(number)
            elif move == "read":
                assert draft.read(number, 50) == model.content[number : number + 50]
            else:  # another handle of the session closes: the first goes on
                assert store.open_for_writing("/f", OpenFlag.WRITE, "session", other) is draft
                store.commit(draft, other)
                assert filesystem.readbytes("/f") == model.content
            assert draft.size == len(model.content)
        store.commit(draft, handle)
        assert filesystem.readbytes("/f") == model.content
        assert store.overlay.all() == []
        assert store.quota.used == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        forwarding.STREAM_FROM_BYTES = before


def test_a_copy_to_what_has_ended_leaves_nothing_open(tmp_path: Path) -> None:
    filesystem, handle = MemoryFS(), object()
    filesystem.writebytes("/f", b"content")
    store = Store(filesystem, spool_directory=tmp_path, limits=TreeLimits())
    draft = store.open_for_writing("/new", OpenFlag.WRITE | OpenFlag.CREAT, None, handle)
    store.drafts.let_go(draft, "the file was removed")
    version = store.open_committed("/f")
    source = store.open_committed("/f")
    with patch.object(store, "open_committed", lambda path: source), pytest.raises(RefusedError, match="was removed"):
        store.copy_onto(draft, "/f", version)
    assert source._file.closed
    version.close()
    store.close()
