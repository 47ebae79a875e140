"""The API's routes, one module for each group. A new module exports `table` and is named here."""

from __future__ import annotations

from fs_dropbox.emulator.routes import (
    batches,
    consent,
    download,
    file_requests,
    files,
    folder_members,
    jobs,
    links,
    listing,
    locks,
    oauth,
    paper,
    search,
    shared_folders,
    shared_links,
    tags,
    teams,
    thumbnails,
    transfer,
    upload,
    upload_batches,
    users,
    zips,
)
from fs_dropbox.emulator.web.registry import Table


def tables() -> list[Table]:
    """Return the tables of all modules."""
    modules = (
        files,
        batches,
        jobs,
        listing,
        search,
        upload,
        upload_batches,
        download,
        zips,
        links,
        users,
        oauth,
        consent,
        teams,
        shared_links,
        shared_folders,
        folder_members,
        file_requests,
        paper,
        locks,
        tags,
        transfer,
        thumbnails,
    )
    return [module.table for module in modules]
