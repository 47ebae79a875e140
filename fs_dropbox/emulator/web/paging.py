"""Pages of plain lists, with the position in a sealed cursor: members, namespaces, shared folders, file requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.errors import BadArgumentError, RouteError
from fs_dropbox.emulator.web.context import Context


@dataclass(slots=True, frozen=True)
class Place:
    """How far somebody has read a list, and how much a page holds."""

    start: int
    limit: int


def asked_for(
    context: Context, arg: Arguments, kind: str, items: Sequence[Any], *, limit: int = 1000, most: int = 1000
) -> tuple[list[Any], str, bool]:
    """Return the page that a call asks for: the first one by its limit or, of a route with continue, by its cursor."""
    if "/continue" in context.route:
        return cut(context, kind, items, place_of(context, kind, arg.string("cursor")))
    return cut(context, kind, items, Place(0, arg.integer("limit", limit, 1, most)))


def cut(context: Context, kind: str, items: Sequence[Any], place: Place) -> tuple[list[Any], str, bool]:
    """Return the page at a place, the cursor behind it, and whether there is more."""
    end = place.start + place.limit
    cursor = context.service.cursors.seal([kind, _reader(context), min(end, len(items)), place.limit])
    return list(items[place.start : end]), cursor, end < len(items)


def place_of(context: Context, kind: str, cursor: str) -> Place:
    """Return the place that a cursor stands for, or raise the route's invalid_cursor."""
    try:
        fields = context.service.cursors.unseal(cursor)
    except BadArgumentError as error:
        raise RouteError("invalid_cursor") from error
    if not isinstance(fields, list) or fields[:2] != [kind, _reader(context)]:
        raise RouteError("invalid_cursor")
    return Place(fields[2], fields[3])


def _reader(context: Context) -> str | None:
    return context.account_id or (context.team.team_id if context.team is not None else None)
