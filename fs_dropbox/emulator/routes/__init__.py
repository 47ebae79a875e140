"""The API's routes, one module for each group. A new module exports `table` and is named here."""

from __future__ import annotations

from ..registry import Table
from . import (
    batches,
    consent,
    download,
    files,
    links,
    listing,
    oauth,
    search,
    teams,
    upload,
    upload_batches,
    users,
    zips,
)


def tables() -> list[Table]:
    """Return the tables of all modules."""
    modules = (
        files,
        batches,
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
    )
    return [module.table for module in modules]
