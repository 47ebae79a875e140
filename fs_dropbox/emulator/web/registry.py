"""The API's routes: names and attributes from routes.json, and the functions that modules register by decorating them.

The modules in `routes/` are found by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fs_dropbox.emulator.arguments import Arguments
    from fs_dropbox.emulator.http import Request, Response
    from fs_dropbox.emulator.service import Service
    from fs_dropbox.emulator.web.context import Context

RouteFunction = Callable[["Context", "Arguments"], Any]
PageFunction = Callable[["Service", "Request"], "Response"]


@dataclass(slots=True, frozen=True)
class Attributes:
    """What the API's specification says about a route; the dispatcher enforces it."""

    host: str  # api, content, notify
    style: str  # rpc, upload, download
    auth: frozenset[str]  # user, team, app, noauth
    scope: str | None
    select_admin: str | None  # whole_team, team_admin
    app_folder: bool  # apps with an app folder may call it


routes: dict[str, RouteFunction] = {}
pages: dict[tuple[str, str], PageFunction] = {}


def route(*names: str) -> Callable[[RouteFunction], RouteFunction]:
    """Register the function of one or several API routes, such as "files/get_metadata"."""

    def register(function: RouteFunction) -> RouteFunction:
        routes.update(dict.fromkeys(names, function))
        return function

    return register


def page(method: str, prefix: str) -> Callable[[PageFunction], PageFunction]:
    """Register the function for everything else below a path: the token endpoint, links, web pages."""

    def register(function: PageFunction) -> PageFunction:
        pages[method, prefix] = function
        return function

    return register


@cache
def load_attributes() -> dict[str, Attributes]:
    """Return the attributes of every route that the emulator has."""
    text = resources.files(__package__).joinpath("routes.json").read_text("utf-8")
    return {
        name: Attributes(
            host=row["host"],
            style=row["style"],
            auth=frozenset(row["auth"].split("+")),
            scope=row["scope"],
            select_admin=row["select_admin"],
            app_folder=row["app_folder"],
        )
        for name, row in json.loads(text).items()
    }
