"""The content hash agrees with Dropbox's published and recorded values, however the bytes arrive."""

from __future__ import annotations

import pytest
from dropbox.content_hash import DropboxContentHasher
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_dropbox.content_hash import BLOCK_SIZE, ContentHash

RECORDED = {
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"Hello Dropbox!": "16dff8700700b9aa627e24bbf832940c084b41ade5c5d6fe5417963a547ed9c2",
    bytes(BLOCK_SIZE): "c7e946d101855255d919ef0c70718633adf77d3dfb3adeeecf5d0cb4e951be58",
    bytes(BLOCK_SIZE + 1): "14a4d47f23a30177885d9820122f17d2d3a55fe63f7f5c27b95f689e0b2accd6",
}


@pytest.mark.parametrize("data", RECORDED, ids=lambda data: f"{len(data)} bytes")
def test_recorded_values(data: bytes) -> None:
    assert ContentHash(data).hexdigest() == RECORDED[data]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3 * BLOCK_SIZE), max_size=4))
def test_splits_do_not_matter(lengths: list[int]) -> None:
    ours, reference = ContentHash(), DropboxContentHasher()
    for number, length in enumerate(lengths):
        piece = bytes([number]) * length
        ours.update(memoryview(piece))
        reference.update(piece)
    assert ours.hexdigest() == reference.hexdigest()


def test_copy_is_independent() -> None:
    original = ContentHash(b"Hello ")
    clone = original.copy()
    clone.update(b"Dropbox!")
    assert clone.hexdigest() == RECORDED[b"Hello Dropbox!"]
    assert original.hexdigest() == ContentHash(b"Hello ").hexdigest()
