"""Conventions of PyFilesystem that its base class leaves to its heirs. Knows nothing of Dropbox."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import fs.errors
from fs.base import FS
from fs.mode import Mode
from fs.path import abspath, normpath

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=fs.errors.FSError)


def as_given(method: Callable[P, T]) -> Callable[P, T]:
    """Let the errors of a method name paths as its caller wrote them."""

    @functools.wraps(method)
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            return method(*args, **options)
        except fs.errors.ResourceError as error:
            for given in (*args, *options.values()):
                if isinstance(given, str) and given != error.path and abspath(normpath(given)) == error.path:
                    error.path = given
            raise

    return call


class StoresWhole(FS):
    """Stores a content whole or not at all, where files know how an exception ends their `with` block.

    The base class's methods close what they could not write to the end: an old file would give way to a beginning.
    """

    def writebytes(self, path: str, contents: bytes) -> None:
        if not isinstance(contents, bytes):
            raise TypeError("contents must be bytes")
        with self.openbin(path, "wb") as file:
            file.write(contents)

    def writetext(
        self, path: str, contents: str, encoding: str = "utf-8", errors: str | None = None, newline: str = ""
    ) -> None:
        if not isinstance(contents, str):
            raise TypeError("contents must be unicode")
        with self.open(path, "wt", encoding=encoding, errors=errors, newline=newline) as file:
            file.write(contents)


def binary_mode(text: str) -> Mode:
    """Return the mode of a binary file; raises ValueError, also where PyFilesystem takes "rw" for a kind of "w"."""
    mode = Mode(text)
    mode.validate_bin()
    if sum(map(text.count, "rwxa")) > 1:
        raise ValueError(f"mode {text!r} must have one of r, w, x and a")
    return mode


@contextmanager
def errors_at(path: str) -> Iterator[None]:
    """Let errors name one path, whatever they are about."""
    try:
        yield
    except fs.errors.FSError as error:
        if hasattr(error, "path"):
            error.path = path
        raise


def path_error(kind: type[E], path: str, reason: str, *, cause: Exception | None = None) -> E:
    """Return an error about a path as it was given, with a reason in words, and what has caused it as its `exc`.

    Braces in paths and reasons are no fields. Pickled it says the same, without the attribute `reason`.
    """
    made: Any = kind  # the constructors of PyFilesystem's errors agree on keywords only
    error: E = made(path=path, exc=cause, msg=f"'{{path}}': {literal(reason)}")
    vars(error)["reason"] = reason
    return error


def literal(text: str) -> str:
    """Return a text as the message of an `fs.errors` error, which would take braces in it for placeholders."""
    return text.replace("{", "{{").replace("}", "}}")
