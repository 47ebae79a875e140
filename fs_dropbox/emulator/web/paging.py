"""Pages of plain lists, with the position in a sealed cursor: members, namespaces, matches, what is behind a link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.errors import BadRequestError, RouteError
from fs_dropbox.emulator.web.context import Context

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Place:
    """How far somebody has read a list, how much a page holds, and what the list is about where the kind is not all."""

    start: int
    limit: int
    about: Any = None  # JSON


def answer(
    context: Context,
    arg: Arguments,
    kind: str,
    items: Sequence[T],
    encode: Callable[[T], Any],
    *,
    field: str = "",
    limit: int = 1000,
) -> dict[str, Any]:
    """Answer the page that a call asks for: the first one by its limit or, of a route with continue, by its cursor.

    What is in it goes into a field of the name of its kind, unless another one is named.
    """
    is_first = "/continue" not in context.route
    place = Place(0, arg.get("limit") or limit) if is_first else valid(place_of(context, kind, arg.get("cursor")))
    page, cursor, has_more = cut(context, kind, items, place)
    return {field or kind: [encode(item) for item in page], "cursor": cursor, "has_more": has_more}


def valid(place: Place | None) -> Place:
    """Return the place of a cursor, or raise invalid_cursor."""
    if place is None:
        raise RouteError("invalid_cursor")
    return place


def cut(context: Context, kind: str, items: Sequence[T], place: Place) -> tuple[list[T], str, bool]:
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
