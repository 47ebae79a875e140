"""Faults at random: of the calls that read and write, for which an emulator is told to fail."""

from __future__ import annotations

import random
from typing import Any, Final

from fs_dropbox.emulator.control.control import Control
from tests.fs_dropbox.files.small_blocks import UNIT

APPEND: Final = "files/upload_session/append_v2"
DOWNLOAD: Final = "files/download"
ROUTES: Final = (
    "*",
    "files/upload",
    DOWNLOAD,
    "files/get_metadata",
    "files/upload_session/start",
    APPEND,
    APPEND,
    "files/upload_session/finish",
    "files/upload_session/start_batch",
    "files/upload_session/append_batch",
    "files/upload_session/finish_batch_v2",
    "files/list_revisions",
)
# "late" is not among them: what is carried out after all was lost undoes later changes by design (docs, section 9).
FAULTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("rate_limit", {"retry_after": 0}),
    ("server_error", {}),
    ("server_error", {"status": 503}),
    ("too_many_write_operations", {}),
    ("expired_token", {}),
    ("blank_body", {}),
    ("cut_request", {}),
    ("cut_request", {"at_byte": 700}),
    ("reset", {}),
    ("cut_body", {}),
    ("corrupt_body", {}),
    ("slow_body", {"seconds": 0.002}),
    ("stall", {"seconds": 0.03}),
    ("stall", {"at": "answer", "seconds": 0.03}),
    ("ambiguous", {}),
    ("ambiguous", {"status": 500}),
    ("error", {"error": {".tag": "not_found"}}),
    ("error", {"error": {".tag": "incorrect_offset", "correct_offset": UNIT}}),
)
_OF_ONE_ROUTE: Final = {"corrupt_body": DOWNLOAD, "error": APPEND}


def declare(control: Control, chance: random.Random) -> str:
    """Declare a fault; return it in words."""
    kind, parameters = chance.choice(FAULTS)
    route = _OF_ONE_ROUTE.get(kind) or chance.choice(ROUTES)
    count, after = chance.choice((1, 1, 1, 2, 8)), chance.choice((0, 0, 1, 2))
    control.fault(route, kind, count, after, **dict(parameters))
    return f"fault {route} {kind} {parameters} x{count} after {after}"
