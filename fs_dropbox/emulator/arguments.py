"""Reads a call's JSON argument field by field and refuses what the real service refuses, with its plain 400 texts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from fs_dropbox.emulator.model.errors import BadArgumentError, BadRequestError

ROOT_AS_SLASH = 'Specify the root folder as an empty string rather than as "/".'
ROOT_UNSUPPORTED = "The root folder is unsupported."

_NAMESPACE = r"(ns:[0-9]+(/(.|[\r\n])*)?)"
# The aliases of the API's specification for its path types.
PATTERNS = {
    "PathROrId": rf"(/(.|[\r\n])*)?|id:.*|{_NAMESPACE}",
    "ReadPath": rf"(/(.|[\r\n])*|id:.*)|(rev:[0-9a-f]{{9,}})|{_NAMESPACE}",
    "WritePath": rf"(/(.|[\r\n])*)|{_NAMESPACE}",
    "WritePathOrId": rf"(/(.|[\r\n])*)|{_NAMESPACE}|(id:.*)",
    "PathOrId": rf"/(.|[\r\n])*|id:.*|{_NAMESPACE}",
    "Path": r"/(.|[\r\n])*",
}
_COMPILED = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}
_MISSING: Any = object()


class Arguments:
    """A struct argument. Every getter checks the type and raises BadArgumentError naming the field.

    A call without an argument may stand for one with all defaults: `absent` is raised where a field is required.
    """

    def __init__(self, fields: Any, prefix: str = "", *, absent: BadRequestError | None = None) -> None:
        if not isinstance(fields, dict):
            raise BadArgumentError(f"{prefix}expected object, got {_kind(fields)}")
        self.fields: dict[str, Any] = fields
        self.prefix = prefix
        self.absent = absent

    def check_names(self, known: frozenset[str]) -> None:
        """Refuse fields that the route does not have."""
        for name in self.fields:
            if name not in known and name != ".tag":
                raise BadArgumentError(f"{self.prefix}unknown field '{name}'")

    def _get(self, name: str, default: Any) -> Any:
        value = self.fields.get(name, _MISSING)
        if value is _MISSING or (value is None and default is not _MISSING):
            if default is _MISSING:
                raise self.absent or BadArgumentError(f"{self.prefix}missing required field '{name}'")
            return default
        return value

    def _typed(self, name: str, default: Any, kinds: type | tuple[type, ...], expected: str) -> Any:
        value = self._get(name, default)
        if value is default:
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            raise self.error(name, f"expected {expected}, got {_kind(value)}")
        return value

    def error(self, name: str, text: str) -> BadArgumentError:
        """Return the refusal of one field."""
        return BadArgumentError(f"{self.prefix}{name}: {text}")

    def string(self, name: str, default: Any = _MISSING, *, max_length: int | None = None, min_length: int = 0) -> Any:
        """Return a string field."""
        value = self._typed(name, default, str, "string")
        if value is not default:
            if max_length is not None and len(value) > max_length:
                raise self.error(name, f"must be at most {max_length} characters, got {len(value)}")
            if len(value) < min_length:
                raise self.error(name, f"must be at least {min_length} characters, got {len(value)}")
        return value

    def boolean(self, name: str, default: bool = False) -> bool:
        """Return a boolean field."""
        value = self._typed(name, default, bool, "boolean")
        return bool(value)

    def integer(self, name: str, default: Any = _MISSING, minimum: int = 0, maximum: int = 2**64 - 1) -> Any:
        """Return an integer field within its range."""
        value = self._typed(name, default, int, "integer")
        if value is not default and not minimum <= value <= maximum:
            raise self.error(name, f"must be between {minimum} and {maximum}, got {value}")
        return value

    def number(self, name: str, default: float, minimum: float, maximum: float) -> float:
        """Return a number that may have a fraction, within its range."""
        value = self._typed(name, default, (int, float), "float")
        if not minimum <= value <= maximum:
            raise self.error(name, f"must be between {minimum} and {maximum}, got {value}")
        return float(value)

    def path(self, name: str, alias: str, default: Any = _MISSING, *, root: bool = False) -> Any:
        """Return a path field that matches the alias; the root is refused with the service's texts unless allowed."""
        value = self._typed(name, default, str, "string")
        if value is default:
            return value
        if root and value == "/":
            raise self.error(name, ROOT_AS_SLASH)
        if not root and value in ("", "/"):
            raise self.error(name, ROOT_UNSUPPORTED)
        if not _COMPILED[alias].fullmatch(value):
            raise self.error(name, f"'{value}' did not match pattern '{PATTERNS[alias]}'")
        return value

    def union(self, name: str, default: str | None = None, *, tags: tuple[str, ...] = ()) -> Arguments:
        """Return a union field as a struct with ".tag"; a bare string stands for a member without a value."""
        value = self._get(name, default if default is not None else _MISSING)
        return as_union(value, f"{self.prefix}{name}: ", tags)

    def optional_union(self, name: str, *, tags: tuple[str, ...] = ()) -> Arguments | None:
        """Return a union field or None when absent."""
        return self.union(name, tags=tags) if self.fields.get(name) is not None else None

    def struct(self, name: str, known: frozenset[str] | None = None) -> Arguments:
        """Return a struct field; `known` are the names in it, and others are refused."""
        struct = Arguments(self._get(name, _MISSING), f"{self.prefix}{name}: ")
        if known is not None:
            struct.check_names(known)
        return struct

    def optional_struct(self, name: str) -> Arguments | None:
        """Return a struct field or None when absent."""
        return self.struct(name) if self.fields.get(name) is not None else None

    def array(self, name: str, default: Any = _MISSING, *, minimum: int = 0, maximum: int | None = None) -> list[Any]:
        """Return a list field within its length."""
        value = self._typed(name, default, list, "list")
        if value is default:
            return list(value)
        if len(value) < minimum:
            raise self.error(name, f"expected at least {minimum} items, got {len(value)}")
        if maximum is not None and len(value) > maximum:
            raise self.error(name, f"expected at most {maximum} items, got {len(value)}")
        return list(value)

    def structs(
        self, name: str, known: frozenset[str] | None = None, *, minimum: int = 0, maximum: int | None = None
    ) -> list[Arguments]:
        """Return a list of structs; `known` are the names in each, and others are refused."""
        values = self.array(name, minimum=minimum, maximum=maximum)
        structs = [Arguments(value, f"{self.prefix}{name}: index {i}: ") for i, value in enumerate(values)]
        if known is not None:
            for struct in structs:
                struct.check_names(known)
        return structs

    def timestamp(self, name: str) -> int | None:
        """Return a time as whole seconds since 1970, or None when absent."""
        value = self._typed(name, None, str, "string")
        if value is None:
            return None
        try:
            return int(datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
        except ValueError:
            raise self.error(name, f"time data '{value}' does not match format '%Y-%m-%dT%H:%M:%SZ'") from None

    @property
    def tag(self) -> str:
        """The member of a union."""
        return str(self.fields[".tag"])


def as_union(value: Any, prefix: str, tags: tuple[str, ...] = ()) -> Arguments:
    """Return a union value as a struct with ".tag"."""
    if isinstance(value, str):
        value = {".tag": value}
    arguments = Arguments(value, prefix)
    if not isinstance(value.get(".tag"), str):
        raise BadArgumentError(f"{prefix}missing required field '.tag'")
    if tags and value[".tag"] not in tags:
        raise BadArgumentError(f"{prefix}invalid value '{value['.tag']}'")
    return arguments


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {bool: "boolean", int: "integer", float: "float", str: "string", list: "list", dict: "object"}[type(value)]
