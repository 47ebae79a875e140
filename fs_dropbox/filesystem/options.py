"""`Options`: how a filesystem is opened. No logic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fs_dropbox.views.documents import Show


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What DropboxFS is told beside the credentials, and says of it; a negative `ttl_seconds` is for no cache."""

    root: str
    api_host: str | None
    ca_certs: str | None
    timeout_seconds: float
    open_seconds: float
    ttl_seconds: float
    change_feed: bool
    documents: Show
    export: Sequence[str]
    views: bool
