"""Pages of plain lists, with the position in a sealed cursor: members, namespaces, matches, what is behind a link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.errors import BadRequestError, RouteError
from fs_dropbox.emulator.web.context import Context


@dataclass(slots=True, frozen=True)
class Place:
    """How far somebody has read a list, how much a page holds, and what the list is about where the kind is not all."""

    start: int
    limit: int
    about: Any = None  # JSON


def asked_for(
    context: Context, arg: Arguments, kind: str, items: Sequence[Any], *, limit: int = 1000
) -> tuple[list[Any], str, bool]:
    """Return the page that a call asks for: the first one by its limit or, of a route with continue, by its cursor."""
    if "/continue" not in context.route:
        return cut(context, kind, items, Place(0, arg.get("limit") or limit))
    return cut(context, kind, items, valid(place_of(context, kind, arg.get("cursor"))))


def valid(place: Place | None) -> Place:
    """Return the place of a cursor, or raise invalid_cursor."""
    if place is None:
        raise RouteError("invalid_cursor")
    return place


def cut(context: Context, kind: str, items: Sequence[Any], place: Place) -> tuple[list[Any], str, bool]:
    """Return the page at a place, the cursor behind it, and whether there is more."""
    end = place.start + place.limit
    cursor = context.service.cursors.seal([kind, _reader(context), min(end, len(items)), place.limit, place.about])
    return list(items[place.start : end]), cursor, end < len(items)


def place_of(context: Context, kind: str, cursor: str) -> Place | None:
    """Return the place that a cursor stands for; None where it is of something, or of somebody, else."""
    try:
        fields = context.service.cursors.unseal(cursor)
    except BadRequestError:
        return None
    is_this = isinstance(fields, list) and fields[:2] == [kind, _reader(context)]
    return Place(*fields[2:]) if is_this else None


def _reader(context: Context) -> str | None:
    return context.account_id or (context.team.team_id if context.team is not None else None)
