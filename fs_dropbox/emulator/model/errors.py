"""What a call can end with instead of a result, in the wire form of the real API. Knows no HTTP server and no state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Union = dict[str, Any]  # a stone union in JSON: {".tag": …, …}


def union(tag: str, **fields: Any) -> Union:
    """Build a stone union; nested unions go in as fields, by the shape rules of the serialisation format."""
    return {".tag": tag, **fields}


def summary(error: Union) -> str:
    """Return the error_summary: the tag path and zero to three dots, which programs must not read."""
    tags = []
    node: Any = error
    while isinstance(node, dict) and (".tag" in node or "reason" in node):
        tag = node.get(".tag")
        if tag is None:
            node = node["reason"]
            continue
        tags.append(tag)
        node = node[tag] if tag in node else node.get("reason")
    return "/".join(tags) + "/" + "." * random.randrange(4)


class CallError(Exception):
    """Anything that the dispatcher turns into an answer with an error status."""


class TaggedError(CallError):
    """A union of the data model, raised deep inside: a route wraps it with nested() into its own error type."""

    def __init__(self, tag: str, **fields: Any) -> None:
        super().__init__(tag)
        self.union = union(tag, **fields)


class PathLookupError(TaggedError):
    """A files.LookupError: malformed_path, not_found, not_file, not_folder, restricted_content, locked…"""


class WriteError(TaggedError):
    """A files.WriteError: conflict, no_write_permission, insufficient_space, disallowed_name, team_folder…"""


def conflict(kind: str) -> WriteError:
    """Return the write conflict with what is in the way: "file", "folder" or "file_ancestor"."""
    return WriteError("conflict", conflict=union(kind))


class RouteError(CallError):
    """409, unless another status is given: the route's own error union."""

    status = 409

    def __init__(self, error: Union | str, user_message: str | None = None, *, status: int | None = None) -> None:
        self.status = status or self.status
        self.error: Union = union(error) if isinstance(error, str) else error
        self.user_message = user_message
        self.summary = summary(self.error)
        super().__init__(self.summary)

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the answer."""
        body: dict[str, Any] = {"error_summary": self.summary, "error": self.error}
        if self.user_message is not None:
            body["user_message"] = {"locale": "en", "text": self.user_message}
        return body


class AuthError(RouteError):
    """401: the token or the selected user is refused (auth.AuthError)."""

    status = 401


class AccessError(RouteError):
    """403: the account or its plan may not call this (auth.AccessError)."""

    status = 403


class PathRootError(RouteError):
    """422: the Dropbox-API-Path-Root header names a root that is not this user's (common.PathRootError)."""

    status = 422


class RateLimitError(CallError):
    """429 with a reason; as JSON or as text, with or without a Retry-After header."""

    def __init__(self, reason: str = "too_many_requests", retry_after: int | None = 1, as_text: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.as_text = as_text

    def body(self) -> dict[str, Any]:
        """Return the JSON body as the service really sends it: the wait is in the header only."""
        reason = union(self.reason)
        return {"error_summary": summary(reason), "error": {"reason": reason}}


class BadRequestError(CallError):
    """400 with a plain text; `detail` is put behind 'Error in call to API function "…": '."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadArgumentError(BadRequestError):
    """400 about the argument: the text also tells where the argument was (request body or HTTP header)."""


class PlainError(CallError):
    """Any status with a text of its own: declared 5xx, and what is outside the API functions (links, tokens, pages)."""

    def __init__(
        self, status: int, text: str, content_type: str = "text/plain; charset=utf-8", retry_after: int | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.content_type = content_type
        self.retry_after = retry_after


@contextmanager
def nested(lookup: str = "path", write: str = "path") -> Iterator[None]:
    """Turn lookup and write failures into the route's error: {".tag": lookup, lookup: {…}}."""
    try:
        yield
    except PathLookupError as error:
        raise RouteError(union(lookup, **{lookup: error.union})) from error
    except WriteError as error:
        raise RouteError(union(write, **{write: error.union})) from error
