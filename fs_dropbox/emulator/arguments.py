"""Reads a call's JSON argument, whose types have been checked: defaults, both forms of unions, times, the root."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fs_dropbox.emulator.model.errors import BadArgumentError

ROOT_AS_SLASH = 'Specify the root folder as an empty string rather than as "/".'
ROOT_UNSUPPORTED = "The root folder is unsupported."


@lru_cache(maxsize=1024)  # what has been checked is read right after
def parse_time(text: str) -> int:
    """Return a time of the API as whole seconds since 1970, or raise ValueError."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


class Arguments:
    """A struct, or a union, of the type that the API's specification says: see web/specification.py.

    `place` names the fields that lead to it, each followed by a dot.
    """

    def __init__(self, fields: dict[str, Any], place: str = "") -> None:
        self.fields = fields
        self._place = place

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or its default where it is absent or null."""
        value = self.fields.get(name)
        return default if value is None else value

    def error(self, name: str, text: str) -> BadArgumentError:
        """Return the refusal of one field."""
        return BadArgumentError(f"{self._place}{name}: {text}")

    def path(self, name: str, *, root: bool = False) -> str:
        """Return a path; the root is refused with the service's texts unless allowed."""
        value = str(self.get(name, ""))
        if value == "/":
            raise self.error(name, ROOT_AS_SLASH if root else ROOT_UNSUPPORTED)
        return value

    def timestamp(self, name: str) -> int | None:
        """Return a time as whole seconds since 1970, or None when absent."""
        value = self.get(name)
        return None if value is None else parse_time(value)

    def struct(self, name: str) -> Arguments:
        """Return a struct; one without any fields where it is absent."""
        return Arguments(self.get(name, {}), f"{self._place}{name}.")

    def structs(self, name: str) -> list[Arguments]:
        """Return a list of structs."""
        return [Arguments(value, f"{self._place}{name}.") for value in self.get(name, [])]

    def union(self, name: str, default: str = "") -> Arguments:
        """Return a union as a struct with ".tag"."""
        return self._union(name, self.get(name, default))

    def unions(self, name: str) -> list[Arguments]:
        """Return a list of unions."""
        return [self._union(name, value) for value in self.get(name, [])]

    def _union(self, name: str, value: Any) -> Arguments:
        return Arguments({".tag": value} if isinstance(value, str) else value, f"{self._place}{name}.")

    def choice(self, name: str, default: str = "") -> str:
        """Return the member that a union is, where that is all of it."""
        return self.union(name, default).tag

    @property
    def tag(self) -> str:
        """The member that this union is."""
        return str(self.fields[".tag"])
