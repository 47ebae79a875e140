"""`Parts`: what a DropboxFS is made of, put together in one place, and taken apart in the right order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Account, Client
from fs_dropbox.api.retry import opening_policy
from fs_dropbox.files.blocks import BlockBudget
from fs_dropbox.filesystem.about import About
from fs_dropbox.filesystem.folders import Folders
from fs_dropbox.filesystem.open_files import OpenFiles
from fs_dropbox.filesystem.options import Options
from fs_dropbox.filesystem.serverside import ServerSide
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.metadata.changes import ChangeFeed
from fs_dropbox.uploads.bulk import BulkUpload
from fs_dropbox.uploads.staging import Staging
from fs_dropbox.uploads.upload import Uploader
from fs_dropbox.views.documents import Documents, check_show
from fs_dropbox.views.history import History
from fs_dropbox.views.links import Links
from fs_dropbox.views.past import Deleted, Versions
from fs_dropbox.views.places import DELETED, VERSIONS, View
from fs_dropbox.views.shared_folders import SharedFolders
from fs_dropbox.views.shown import Shown

READ_AHEAD_THREADS: Final = 12
SMALL_FILE_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class Parts:
    """The layers, from the wire up: client, cache, change feed, catalog, server-side calls, uploads, files, views."""

    client: Client
    account: Account
    cache: MetadataCache
    feed: ChangeFeed | None
    catalog: Catalog
    server_side: ServerSide
    uploader: Uploader
    bulk: BulkUpload
    staging: Staging
    executors: tuple[ThreadPoolExecutor, ...]
    files: OpenFiles
    history: History
    shown: Shown
    links: Links
    folders: Folders
    about: About

    def close(self) -> None:
        """End every thread and request, then the connections. Idempotent."""
        if self.feed is not None:
            self.feed.stop()
        self.client.close()
        for executor in self.executors:
            executor.shutdown(wait=True, cancel_futures=True)
        self.uploader.close()
        self.files.abort_all()


@dataclass(frozen=True, slots=True)
class _Roots:
    """Makes what each root of an account has of its own; the rest they share."""

    client: Client
    uploader: Uploader
    read_ahead: ThreadPoolExecutor
    small: ThreadPoolExecutor
    budget: BlockBudget
    options: Options

    def layers(self, client: Client, catalog: Catalog, history: History | None = None) -> tuple[OpenFiles, Shown]:
        """Return how files are opened below a root, and what is shown there: with a history, views as well."""
        shown_as = Documents(client.export, self.small, show=self.options.documents, formats=self.options.export)
        files = OpenFiles(
            client,
            catalog,
            self.uploader,
            shown_as,
            read_ahead=self.read_ahead,
            small=self.small,
            budget=self.budget,
        )
        views: dict[str, View] = {}
        shared = None
        if history is not None and self.options.views:
            views = {VERSIONS: Versions(catalog, history, shown_as), DELETED: Deleted(catalog, history, shown_as)}
            shared = SharedFolders(client.sharing.mountable_folders, self.open)
        return files, Shown(catalog, shown_as, files.read, views=views, shared=shared)

    def open(self, namespace_id: str) -> Shown:
        """Return what is shown below the root of a namespace."""
        rooted = self.client.rooted(namespace_id)
        catalog = Catalog(rooted, MetadataCache(ttl_seconds=self.options.ttl_seconds), submit=self.small.submit)
        return self.layers(rooted, catalog)[1]


def assemble(credentials: Credentials, options: Options) -> Parts:
    """Sign in with one call and return the parts.

    Raises ValueError, ApiError or TransportError; then nothing is left open.
    """
    check_show(options.documents)
    client, account = _sign_in(credentials, options)
    cache = MetadataCache(ttl_seconds=options.ttl_seconds)
    feed = ChangeFeed(client, cache) if options.change_feed else None
    client.on_root_change(feed.renew if feed is not None else cache.clear)
    uploader = Uploader(client)
    read_ahead = ThreadPoolExecutor(READ_AHEAD_THREADS, thread_name_prefix="fs-dropbox-read")
    small = ThreadPoolExecutor(SMALL_FILE_THREADS, thread_name_prefix="fs-dropbox-small")
    catalog = Catalog(client, cache, on_use=feed.start if feed is not None else lambda: None, submit=small.submit)
    roots = _Roots(client, uploader, read_ahead, small, BlockBudget(), options)
    history = History(client, catalog, small)
    files, shown = roots.layers(client, catalog, history)
    return Parts(
        client=client,
        account=account,
        cache=cache,
        feed=feed,
        catalog=catalog,
        server_side=ServerSide(client, catalog),
        uploader=uploader,
        bulk=BulkUpload(client, catalog, uploader),
        staging=Staging(client, catalog, uploader),
        executors=(read_ahead, small),
        files=files,
        history=history,
        shown=shown,
        links=Links(client.sharing, shown),
        folders=Folders(client, catalog),
        about=About(client, account, feed, credentials, options),
    )


def _sign_in(credentials: Credentials, options: Options) -> tuple[Client, Account]:
    client = Client(
        credentials,
        api_host=options.api_host,
        ca_certs=options.ca_certs,
        root=options.root,
        timeout_seconds=options.timeout_seconds,
    )
    try:
        return client, client.account(opening_policy(options.open_seconds))
    except BaseException:
        client.close()
        raise
