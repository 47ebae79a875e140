"""Checks arguments against their types in the API's specification, and refuses them with the texts of the service.

types.json is made of the official SDK by tests/emulator/specification.py. The service is built with the same tool as
the SDK, stone: its plain 400 texts, where people have reported some, are stone's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from math import isfinite
from typing import Any

from fs_dropbox.emulator.arguments import parse_time
from fs_dropbox.emulator.model.errors import BadArgumentError

Check = Callable[[Any], None]  # raises _RefusalError
MAX_SHOWN = 1000
EMAIL = "^['#&"  # the pattern that begins so: what did not match it is not repeated


class _RefusalError(Exception):
    """What is wrong with a value, and the fields that lead to it, the innermost first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.fields: list[str] = []


def check_argument(route: str, value: Any) -> None:
    """Raise BadArgumentError unless a value is of the type of a route's argument."""
    try:
        _checks()[route](value)
    except _RefusalError as refusal:
        where = ".".join(reversed(refusal.fields))
        raise BadArgumentError(f"{where}: {refusal.text}" if where else refusal.text) from None


@cache
def _checks() -> dict[str, Check]:
    text = resources.files(__package__).joinpath("types.json").read_text("utf-8")
    table = json.loads(text)
    types = _Types(table["types"])
    return {route: types.check(kind) for route, kind in table["arguments"].items()}


class _Types:
    """Makes the check of each type once."""

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named
        self._checks: dict[str, Check] = {"Void": _check_void, "Boolean": _check_boolean, "Timestamp": _check_time}

    def check(self, kind: Any) -> Check:
        """Return the check of a type: a name, or a list of a kind and its limits."""
        if isinstance(kind, list):
            return self._limited(*kind)
        if kind not in self._checks:
            named = self._named.get(kind)
            if named is None:
                self._checks[kind] = self._limited(kind)
            elif "struct" in named:
                self._checks[kind] = self._struct(named["struct"])
            else:
                self._checks[kind] = self._union(named["union"])
        return self._checks[kind]

    def is_struct(self, kind: str) -> bool:
        """Tell whether a name is that of a struct."""
        return "struct" in self._named.get(kind, {})

    def _limited(self, kind: str, *limits: Any) -> Check:
        if kind == "List":
            return _list(self.check(limits[0]), *limits[1:])
        makers: dict[str, Callable[..., Check]] = {"String": _string, "Integer": _integer, "Real": _real}
        return makers[kind](*limits)

    def _struct(self, kinds: dict[str, Any]) -> Check:
        fields = {name.rstrip("?="): (self.check(kind), name.endswith("?")) for name, kind in kinds.items()}
        required = [name for name in kinds if name in fields]

        def check(value: Any) -> None:
            if value is None and not required:
                return
            if not isinstance(value, dict):
                raise _RefusalError(f"expected object, got {_kind(value)}")
            for name in value:
                if name not in fields and not name.startswith(".tag"):
                    raise _RefusalError(f"unknown field '{name}'")
            for name, inner in value.items():
                if name in fields:
                    check_field, is_nullable = fields[name]
                    if inner is not None or not is_nullable:
                        _below(name, check_field, inner)
            for name in required:
                if name not in value:
                    raise _RefusalError(f"missing required field '{name}'")

        return check

    def _union(self, kinds: dict[str, Any]) -> Check:
        members = {tag: _Member(self, tag, kind) for tag, kind in kinds.items()}

        def check(value: Any) -> None:
            if not isinstance(value, (str, dict)):
                raise _RefusalError(f"expected string or object, got {_kind(value)}")
            tag = value if isinstance(value, str) else value.get(".tag", members)
            if tag is members:
                raise _RefusalError("missing '.tag' key")
            if not isinstance(tag, str):
                raise _RefusalError(f"tag must be string, got {_kind(tag)}")
            if tag not in members:
                raise _RefusalError(f"unknown tag '{tag}'")
            members[tag].check(value)

        return check


class _Member:
    """A member of a union: nothing but its tag, the fields of a struct beside it, or a value under its own name."""

    def __init__(self, types: _Types, tag: str, kind: Any) -> None:
        self._tag = tag
        self._is_nullable = isinstance(kind, list) and kind[0] == "Nullable"
        inner = kind[1] if self._is_nullable else kind
        self._check = types.check(inner)
        self._is_void = inner == "Void"
        self._is_struct = isinstance(inner, str) and types.is_struct(inner)

    def check(self, value: str | dict[str, Any]) -> None:
        """Check a value that has this member's tag."""
        if isinstance(value, str):
            if not (self._is_void or self._is_nullable):
                raise _RefusalError(f"expected object for '{self._tag}', got symbol")
        elif self._is_struct:
            if len(value) > 1 or not self._is_nullable:
                _below(self._tag, self._check, value)
        else:
            self._check_value(value)

    def _check_value(self, value: dict[str, Any]) -> None:
        inner = value.get(self._tag)
        if self._is_void and inner is not None:
            raise _RefusalError(f"expected null, got {_kind(inner)}")
        if self._tag not in value and not (self._is_void or self._is_nullable):
            raise _RefusalError(f"missing '{self._tag}' key")
        for name in value:
            if name not in (self._tag, ".tag"):
                raise _RefusalError(f"unexpected key '{name}'")
        if self._tag in value:
            self._check(inner)


def _below(name: str, check: Check, value: Any) -> None:
    try:
        check(value)
    except _RefusalError as refusal:
        refusal.fields.append(name)
        raise


def _check_void(value: Any) -> None:
    if value is not None:
        raise _RefusalError("expected null, got value")


def _check_boolean(value: Any) -> None:
    if not isinstance(value, bool):
        raise _RefusalError(f"{value!r} is not a valid boolean")


def _check_time(value: Any) -> None:
    try:
        parse_time(value)
    except ValueError as error:
        raise _RefusalError(str(error)) from None
    except TypeError:
        kind = "None" if value is None else type(value).__name__
        raise _RefusalError(f"strptime() argument 1 must be str, not {kind}") from None


def _string(shortest: int | None = None, longest: int | None = None, pattern: str | None = None) -> Check:
    matches = re.compile(pattern or r"(?s:.*)").fullmatch

    def check(value: Any) -> None:
        if not isinstance(value, str):
            raise _RefusalError(f"'{_shown(value)}' expected to be a string, got {_kind(value)}")
        if longest is not None and len(value) > longest:
            raise _RefusalError(f"'{_shown(value)}' must be at most {longest} characters, got {len(value)}")
        if shortest is not None and len(value) < shortest:
            raise _RefusalError(f"'{_shown(value)}' must be at least {shortest} characters, got {len(value)}")
        if pattern is not None and not matches(value):
            shown = "*****" if pattern.startswith(EMAIL) else _shown(value)
            raise _RefusalError(f"'{shown}' did not match pattern '{pattern}'")

    return check


def _integer(smallest: int, largest: int) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, int):
            raise _RefusalError(f"expected integer, got {_kind(value)}")
        if not smallest <= value <= largest:
            raise _RefusalError(f"{value:d} is not within range [{smallest}, {largest}]")

    return check


def _real(smallest: float, largest: float) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, (int, float)):
            raise _RefusalError(f"expected real number, got {_kind(value)}")
        if not isfinite(value):
            raise _RefusalError(f"{value:f} values are not supported")
        if value < smallest:
            raise _RefusalError(f"{value:f} is not greater than {smallest:f}")
        if value > largest:
            raise _RefusalError(f"{value:f} is not less than {largest:f}")

    return check


def _list(check_item: Check, fewest: int | None = None, most: int | None = None) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise _RefusalError(f"expected list, got {_kind(value)}")
        for item in value:
            check_item(item)
        if most is not None and len(value) > most:
            raise _RefusalError(f"{_shown(value)!r} has more than {most} items")
        if fewest is not None and len(value) < fewest:
            raise _RefusalError(f"{_shown(value)!r} has fewer than {fewest} items")

    return check


def _shown(value: Any) -> str:
    text = str(value)
    cut = " [The string has been truncated due to its length]"
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + cut


def _kind(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "float", str: "string", list: "list", dict: "dict"}
    return names.get(type(value), "null")
