"""The API's routes, one module for each group. A new module exports `table` and is named here."""

from __future__ import annotations

from ..registry import Table
from . import download, files, listing, oauth, upload, users


def tables() -> list[Table]:
    """Return the tables of all modules."""
    return [module.table for module in (files, listing, upload, download, users, oauth)]
