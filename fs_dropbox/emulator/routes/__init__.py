"""The API's routes, one module for each group, which registers its functions; there is nothing else to name it in."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def load() -> None:
    """Import all modules."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
