"""`Parts`: what a DropboxFS is made of, put together in one place, and taken apart in the right order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from fs_dropbox.auth import Credentials
from fs_dropbox.cache import MetadataCache
from fs_dropbox.catalog import Catalog
from fs_dropbox.changes import ChangeFeed
from fs_dropbox.client import Account, Client
from fs_dropbox.open_files import OpenFiles
from fs_dropbox.serverside import ServerSide
from fs_dropbox.upload import Uploader

READ_AHEAD_THREADS: Final = 12
SMALL_FILE_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class Parts:
    """The layers, from the wire up: client, cache and change feed, catalog, server-side calls, uploads, files."""

    client: Client
    account: Account
    cache: MetadataCache
    feed: ChangeFeed | None
    catalog: Catalog
    server_side: ServerSide
    uploader: Uploader
    executors: tuple[ThreadPoolExecutor, ...]
    files: OpenFiles

    def close(self) -> None:
        """End every thread and request, then the connections. Idempotent."""
        if self.feed is not None:
            self.feed.stop()
        self.client.close()
        for executor in self.executors:
            executor.shutdown(wait=True, cancel_futures=True)
        self.uploader.close()
        self.files.abort_all()


def assemble(
    credentials: Credentials,
    *,
    root: str,
    api_host: str | None,
    ca_certs: str | None,
    timeout_seconds: float,
    cache_ttl_seconds: float | None,
    change_feed: bool,
) -> Parts:
    """Sign in with one call and return the parts; no `cache_ttl_seconds` means no cache.

    Raises ValueError, ApiError or TransportError; then nothing is left open.
    """
    client = Client(credentials, api_host=api_host, ca_certs=ca_certs, root=root, timeout_seconds=timeout_seconds)
    try:
        account = client.account()
    except BaseException:
        client.close()
        raise
    cache = MetadataCache(ttl_seconds=-1.0 if cache_ttl_seconds is None else cache_ttl_seconds)
    feed = ChangeFeed(client, cache) if change_feed and cache_ttl_seconds is not None else None
    catalog = Catalog(client, cache, on_use=feed.start if feed is not None else lambda: None)
    uploader = Uploader(client)
    read_ahead = ThreadPoolExecutor(READ_AHEAD_THREADS, thread_name_prefix="fs-dropbox-read")
    small = ThreadPoolExecutor(SMALL_FILE_THREADS, thread_name_prefix="fs-dropbox-small")
    return Parts(
        client=client,
        account=account,
        cache=cache,
        feed=feed,
        catalog=catalog,
        server_side=ServerSide(client, catalog),
        uploader=uploader,
        executors=(read_ahead, small),
        files=OpenFiles(client, catalog, uploader, read_ahead=read_ahead, small=small),
    )
