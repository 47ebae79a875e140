"""Blocks of a kibibyte: files of kilobytes are treated as those of many megabytes are, by the emulator as well."""

from __future__ import annotations

from typing import Any, Final

import pytest

from fs_dropbox import DropboxFS, content_hash
from fs_dropbox.api.retry import RetryPolicy
from fs_dropbox.emulator.model import sessions
from fs_dropbox.files import blocks, integrity, read_file, siblings, spool, write_file
from fs_dropbox.filesystem import open_files
from fs_dropbox.uploads import checkpoints, group_commit, session_contents, upload

UNIT: Final = 1024  # in place of 4 MiB
POLICY: Final = RetryPolicy(attempts=3, deadline_seconds=10.0, first_pause_seconds=0.004, longest_pause_seconds=0.02)

_CONSTANTS: Final[dict[Any, dict[str, float]]] = {
    content_hash: {"BLOCK_SIZE": UNIT},
    checkpoints: {"BLOCK_SIZE": UNIT},
    sessions: {"HASH_BLOCK_BYTES": UNIT},
    integrity: {"BLOCK_SIZE": UNIT, "PENDING_BYTES": 4 * UNIT, "PIECE_BYTES": UNIT // 4},
    blocks: {
        "BLOCK_BYTES": UNIT // 4,
        "SPAN_BLOCKS": 4,
        "AHEAD_BYTES": 6 * UNIT,
        "SMALL_BYTES": UNIT // 2,
        "NEAR_BYTES": UNIT // 2,
    },
    open_files: {"BLOCK_BYTES": UNIT // 4},
    read_file: {"COPY_BYTES": UNIT, "LINE_BYTES": 50},
    write_file: {"COPY_BYTES": UNIT},
    spool: {"MEMORY_BYTES": 700, "PIECE_BYTES": 1500},
    siblings: {"SMALL_BYTES": UNIT // 2},
    upload: {"BLOCK_SIZE": UNIT, "SHARED_BYTES": 256, "COLLECTED_BYTES": 3 * UNIT, "COMMITTED_BYTES": 4 * UNIT},
    group_commit: {"SHARED_BYTES": 256, "GROUP_BYTES": 2 * UNIT, "GATHER_SECONDS": 0.002},
    session_contents: {"SMALL_BYTES": UNIT, "APPEND_BYTES": 3 * UNIT, "PIECE_BYTES": UNIT},
}
_DEFAULTS: Final[tuple[tuple[Any, str, int], ...]] = (
    (upload.Uploader, "block_bytes", 2 * UNIT),
    (blocks.BlockReader, "limit_bytes", 2 * UNIT),
)


def make_blocks_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sizes of everything small, in proportion; memory is scarce."""
    for module, values in _CONSTANTS.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    for owner, name, value in _DEFAULTS:
        monkeypatch.setitem(owner.__init__.__kwdefaults__, name, value)
    monkeypatch.setattr(blocks.BlockBudget.__init__, "__defaults__", (6 * UNIT,))


def impatient(account: DropboxFS) -> DropboxFS:
    """Have an account's calls give up soon."""
    account._parts.client._caller._retry.policy = POLICY
    return account
