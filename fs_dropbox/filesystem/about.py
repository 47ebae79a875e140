"""`About`: what a DropboxFS tells of itself: its abilities, whose account it is, how full that is. No HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from fs_dropbox import paths
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Account, Client
from fs_dropbox.errors import fs_errors
from fs_dropbox.filesystem.options import Options
from fs_dropbox.metadata.changes import ChangeFeed

USAGE_SECONDS: Final = 60.0
ABILITIES: Final[Mapping[str, str | int | None]] = {
    "atomic_writes": True,
    "case_insensitive": True,
    "invalid_path_chars": "".join(paths.REFUSED_CHARACTERS),
    "max_path_length": None,
    "max_sys_path_length": None,
    "network": True,
    "read_only": False,
    "resumable_uploads": True,
    "staged_uploads": True,
    "supports_mtime": False,
    "supports_rename": False,
    "thread_safe": True,
    "unicode_paths": True,
    "virtual": False,
}


class About:
    """The namespaces of `getmeta`. Owned by DropboxFS. Thread-safe: what it keeps is replaced, never changed."""

    def __init__(
        self, client: Client, account: Account, feed: ChangeFeed | None, credentials: Credentials, options: Options
    ) -> None:
        self._client = client
        self._account = account
        self._feed = feed
        self._credentials = credentials
        self._options = options
        self._usage: tuple[float, dict[str, int]] | None = None

    def meta(self, namespace: str) -> dict[str, object]:
        """Return what is known under a namespace: nothing for those that there are not. None of it is secret."""
        if namespace == "usage":
            return dict(self._get_usage())
        if namespace == "dropbox":
            acting = {"member": self._credentials.member, "admin": self._credentials.admin, "root": self._options.root}
            return asdict(self._account) | acting | {"documents": self._options.documents, "views": self._options.views}
        if namespace == "account":
            return {"id": self._account.account_id}
        if namespace == "state":
            throttled = self._client.governor.throttled_until is not None
            return {"throttled": throttled, "followed": self._feed is None or self._feed.is_live}
        return dict(ABILITIES) if namespace == "standard" else {}

    def _get_usage(self) -> dict[str, int]:
        usage = self._usage
        if usage is None or time.monotonic() - usage[0] > USAGE_SECONDS:
            with fs_errors("/"):
                space = self._client.space_usage()
            usage = self._usage = (time.monotonic(), {"used": space.used, "total": space.allocated})
        return usage[1]
