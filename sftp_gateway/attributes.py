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

from sftp_gateway.packets import Attributes

FILE_MODE = stat.S_IFREG | 0o644
FOLDER_MODE = stat.S_IFDIR | 0o755
OWNER_ID = 1000
GROUP_ID = 1000
OWNER_NAME = "owner"
GROUP_NAME = "group"
FOLDER_TIME = 946_684_800  # 2000-01-01, where a filesystem knows no time: constant, so that nothing looks changed

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HALF_YEAR_SECONDS = 365 * 24 * 60 * 60 // 2
_MAX_TIME = 2**32 - 1


def file_attributes(size: int, modified: float | None) -> Attributes:
    """Return the attributes of a file of `size` bytes; `modified` in seconds since 1970."""
    moment = _clamp(modified)
    return Attributes(size, OWNER_ID, GROUP_ID, FILE_MODE, moment, moment)


def folder_attributes(modified: float | None = None) -> Attributes:
    """Return the attributes of a folder."""
    moment = _clamp(modified)
    return Attributes(0, OWNER_ID, GROUP_ID, FOLDER_MODE, moment, moment)


def from_info(info: Info) -> Attributes:
    """Return the attributes for an Info that has the details namespace (basic alone gives size 0)."""
    details: Mapping[str, Any] = info.raw.get("details") or {}
    modified = details.get("modified")
    if is_folder(info):
        return folder_attributes(modified)
    return file_attributes(max(0, int(details.get("size") or 0)), modified)


def is_folder(info: Info) -> bool:
    """Tell whether an Info is of a folder."""
    if info.raw.get("basic", {}).get("is_dir"):
        return True
    return bool((info.raw.get("details") or {}).get("type") == int(ResourceType.directory))


def longname(name: str, attributes: Attributes, now: float) -> str:
    """Return the line that `ls -l` would print at `now` (seconds since 1970)."""
    mode = "drwxr-xr-x" if stat.S_ISDIR(attributes.permissions or 0) else "-rw-r--r--"
    date = _date(attributes.mtime or 0, int(now) // 60)
    return f"{mode}    1 {OWNER_NAME:<8} {GROUP_NAME:<8} {attributes.size or 0:8d} {date} {name}"


@lru_cache(maxsize=4096)
def _date(moment: int, now_minutes: int) -> str:
    now = now_minutes * 60 + 59
    when = time.gmtime(moment)
    day = f"{_MONTHS[when.tm_mon - 1]} {when.tm_mday:2d}"
    if now - _HALF_YEAR_SECONDS < moment <= now:
        return f"{day} {when.tm_hour:02d}:{when.tm_min:02d}"
    return f"{day}  {when.tm_year}"


def _clamp(moment: float | None) -> int:
    if not moment:
        return FOLDER_TIME
    return min(max(int(moment), 0), _MAX_TIME)
