"""`Info` of a filesystem as SFTP attributes and as a line of `ls -l`. Pure.

Listings are read by people, and parsed by clients (FileZilla takes type and size from the line), so the line follows
OpenSSH's server to the byte: C locale, UTC, time of day for the last half year, else the year.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fs.enums import ResourceType
from fs.info import Info

from sftp_gateway.sftp.packets import Attributes

FILE_MODE = stat.S_IFREG | 0o644
DIRECTORY_MODE = stat.S_IFDIR | 0o755
OWNER_ID = 1000
GROUP_ID = 1000
OWNER_NAME = "owner"
GROUP_NAME = "group"
DIRECTORY_TIME = 946_684_800  # 2000-01-01, where a filesystem knows no time: constant, so that nothing looks changed

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HALF_YEAR_MINUTES = 365 * 24 * 60 // 2
_MAX_TIME = 2**32 - 1
_DIRECTORY_TYPE = int(ResourceType.directory)
_NOTHING: Mapping[str, Any] = {}
_OWNED = f"    1 {OWNER_NAME:<8} {GROUP_NAME:<8}".encode()
_FILE_LINE, _DIRECTORY_LINE = b"-rw-r--r--" + _OWNED + b" %8d %b ", b"drwxr-xr-x" + _OWNED + b" %8d %b "


def file_attributes(size: int, modified: float | None) -> Attributes:
    """Return the attributes of a file of `size` bytes; `modified` in seconds since 1970."""
    moment = _clamp(modified)
    return Attributes(size, OWNER_ID, GROUP_ID, FILE_MODE, moment, moment)


def directory_attributes(modified: float | None = None) -> Attributes:
    """Return the attributes of a directory."""
    moment = _clamp(modified)
    return Attributes(0, OWNER_ID, GROUP_ID, DIRECTORY_MODE, moment, moment)


def from_info(info: Info) -> Attributes:
    """Return the attributes for an Info that has the details namespace (basic alone gives size 0)."""
    details: Mapping[str, Any] = info.raw.get("details") or _NOTHING
    if is_directory(info):
        return directory_attributes(details.get("modified"))
    return file_attributes(max(0, int(details.get("size") or 0)), details.get("modified"))


def is_directory(info: Info) -> bool:
    """Tell whether an Info is of a directory."""
    raw = info.raw
    return (
        bool(raw.get("basic", _NOTHING).get("is_dir"))
        or (raw.get("details") or _NOTHING).get("type") == _DIRECTORY_TYPE
    )


def are_of_directory(value: Attributes) -> bool:
    """Tell whether attributes that were made here are those of a directory."""
    return value.permissions == DIRECTORY_MODE


def line(attributes: Attributes, now_minutes: int) -> bytes:
    """Return what `ls -l` would print ahead of a name at that time (minutes since 1970)."""
    size, _, _, permissions, _, moment = attributes
    layout = _DIRECTORY_LINE if stat.S_ISDIR(permissions or 0) else _FILE_LINE
    return layout % (size or 0, _date((moment or 0) // 60, now_minutes))


@lru_cache(maxsize=16384)
def _date(minutes: int, now_minutes: int) -> bytes:
    when = time.gmtime(minutes * 60)
    day = f"{_MONTHS[when.tm_mon - 1]} {when.tm_mday:2d}"
    if now_minutes - _HALF_YEAR_MINUTES < minutes <= now_minutes:
        return f"{day} {when.tm_hour:02d}:{when.tm_min:02d}".encode()
    return f"{day}  {when.tm_year}".encode()


def _clamp(moment: float | None) -> int:
    if moment is None:
        return DIRECTORY_TIME
    return min(max(int(moment), 0), _MAX_TIME)
