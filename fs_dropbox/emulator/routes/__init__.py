"""The API's routes, one module for each group. A module here exports `table`; there is nothing else to name it in."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fs_dropbox.emulator.web.registry import Table


def tables() -> list[Table]:
    """Return the tables of all modules."""
    return [import_module(f"{__name__}.{module.name}").table for module in iter_modules(__path__)]
