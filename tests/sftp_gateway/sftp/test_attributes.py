"""Attributes and lines of `ls -l`, to the second."""

from __future__ import annotations

import stat
import time

import pytest
from fs.info import Info

from sftp_gateway.sftp import attributes, packets

NOW = 1_795_270_800  # a full minute in 2026
HALF_YEAR = 365 * 24 * 60 * 60 // 2


@pytest.mark.parametrize(
    ("age", "has_time"),
    [(0, True), (60, True), (-1, True), (-59, True), (-60, False), (HALF_YEAR - 60, True), (HALF_YEAR, False)],
)
def test_the_time_of_day_is_shown_for_the_last_half_year(age: int, has_time: bool) -> None:
    moment = NOW - age
    line = attributes.line(attributes.file_attributes(5, moment), NOW // 60).decode()
    when = time.gmtime(moment)
    expected = f"{when.tm_hour:02d}:{when.tm_min:02d}" if has_time else f" {when.tm_year}"
    assert line.endswith(f" {when.tm_mday:2d} {expected} ")


def test_sizes_keep_their_places() -> None:
    value = attributes.file_attributes(123_456_789_012, NOW)
    assert attributes.line(value, NOW // 60).startswith(b"-rw-r--r--    1 owner    group    123456789012 Nov 21 ")
    assert attributes.line(attributes.directory_attributes(), NOW // 60).startswith(b"drwxr-xr-x    1 ")


@pytest.mark.parametrize(
    ("raw", "is_folder", "size", "moment"),
    [
        ({"basic": {"name": "f", "is_dir": False}}, False, 0, attributes.DIRECTORY_TIME),
        ({"basic": {"name": "f"}, "details": {"type": 1}}, True, 0, attributes.DIRECTORY_TIME),
        ({"basic": {"name": "f"}, "details": {"size": 5, "modified": 0}}, False, 5, 0),
        ({"basic": {"is_dir": True}, "details": {"size": 4096, "modified": 7.9}}, True, 0, 7),
        ({"basic": {"is_dir": False}, "details": {"size": 5, "modified": 1e12}}, False, 5, 2**32 - 1),
        ({"basic": {"is_dir": False}, "details": {"size": None, "modified": -3}}, False, 0, 0),
    ],
)
def test_whatever_a_filesystem_tells_fits_into_a_packet(
    raw: dict[str, dict[str, object]], is_folder: bool, size: int, moment: int
) -> None:
    value = attributes.from_info(Info(raw))
    assert (stat.S_ISDIR(value.permissions or 0), value.size, value.mtime) == (is_folder, size, moment)
    assert len(packets.attrs(1, value)) == 4 + 37
    assert packets.attrs(1, value)[9:] == packets.attributes(value)
