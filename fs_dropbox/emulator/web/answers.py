"""Answers in the form of the service: JSON, texts, failures with their status and headers, contents to download."""

from __future__ import annotations

import json
import logging
from typing import Any

from fs_dropbox.emulator.http import Response
from fs_dropbox.emulator.model.errors import (
    BadArgumentError,
    BadRequestError,
    CallError,
    PlainError,
    RateLimitError,
    RouteError,
)
from fs_dropbox.emulator.web.context import Download

log = logging.getLogger(__name__)

JSON_TYPE = "application/json"


def json_response(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    """Return an answer with JSON, escaped to ASCII as the service does."""
    headers = {"Content-Type": JSON_TYPE, "Cache-Control": "no-cache", **(headers or {})}
    return Response(status, headers, json.dumps(value).encode())


def text_response(status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> Response:
    """Return an answer with a text."""
    return Response(status, {"Content-Type": content_type}, text.encode(errors="backslashreplace"))


def failure_response(failure: CallError, route: str, place: str = "request body") -> Response:
    """Return the answer for a failure, with the status, form and headers of the real service."""
    if isinstance(failure, RouteError):
        headers = {"WWW-Authenticate": 'Bearer realm="Dropbox-API"'} if failure.status == 401 else {}
        return json_response(failure.status, failure.body(), headers)
    if isinstance(failure, RateLimitError):
        response = text_response(429, failure.reason) if failure.as_text else json_response(429, failure.body())
        return _retried_after(failure.retry_after, response)
    if isinstance(failure, BadRequestError):
        where = f"{place}: " if isinstance(failure, BadArgumentError) else ""
        return text_response(400, f'Error in call to API function "{route}": {where}{failure.detail}')
    if isinstance(failure, PlainError):
        response = text_response(failure.status, failure.text, failure.content_type)
        return _retried_after(failure.retry_after, response)
    log.error("%s: %r is not wrapped into the error of the route", route, failure)
    return text_response(500, "Internal Server Error")


def _retried_after(seconds: int | None, response: Response) -> Response:
    if seconds is not None:
        response.headers["Retry-After"] = str(seconds)
    return response


def download_response(download: Download) -> Response:
    """Return the answer of a download: the result of a call in a header, the content in the body."""
    headers = {"Content-Type": download.content_type, "Cache-Control": "no-cache"}
    if download.result is not None:
        headers["Dropbox-API-Result"] = json.dumps(download.result).replace("\x7f", "\\u007f")
    if download.size is None:
        return Response(200, headers, download.reader)
    end = download.size if download.end is None else download.end
    headers["Accept-Ranges"] = "bytes"
    headers["Original-Content-Length"] = str(end - download.start)
    if download.etag is not None:
        headers["ETag"] = download.etag
    if download.is_partial:
        headers["Content-Range"] = f"bytes {download.start}-{end - 1}/{download.size}"
    return Response(206 if download.is_partial else 200, headers, download.reader, length=end - download.start)


def knows(if_none_match: str, etag: str) -> bool:
    """Tell whether a client has this content: tags are compared weakly, and caches may name several."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in known or etag.removeprefix("W/") in known


def length_of(response: Response) -> int:
    """Return the bytes of a body, 0 when they are not known before it is sent."""
    return len(response.body) if isinstance(response.body, bytes) else (response.length or 0)


def bad_type(given: str, accepted: tuple[str, ...]) -> str:
    """Return the refusal of a content type."""
    listed = ", ".join(f'"{kind}"' for kind in accepted)
    return f'Bad HTTP "Content-Type" header: "{given}".  Expecting one of {listed}.'
