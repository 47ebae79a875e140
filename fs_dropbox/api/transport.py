"""One HTTP exchange with Dropbox through the SDK, and what its failures mean. The only module that imports the SDK."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import dropbox
import requests
import urllib3
import urllib3.exceptions
from dropbox import dropbox_client
from dropbox import session as sdk_session
from dropbox.dropbox_client import RouteErrorResult
from dropbox.exceptions import DropboxException
from dropbox.stone_validators import ValidationError

from fs_dropbox._version import __version__
from fs_dropbox.api.pool import CONNECT_SECONDS, Activity, Session, Tracked
from fs_dropbox.api.retry import Waiter
from fs_dropbox.api.routes import STAND_IN, Route, Style
from fs_dropbox.errors import ApiError, AuthError, DropboxError, TransportError, TransportKind, tags

# Dropbox's hosts: what the SDK calls them, the variables that say where they are, and what it has made of these.
_HOSTS: Final = (
    ("api", "DROPBOX_API_HOST", "API_HOST"),
    ("content", "DROPBOX_API_CONTENT_HOST", "API_CONTENT_HOST"),
    ("notify", "DROPBOX_API_NOTIFY_HOST", "API_NOTIFICATION_HOST"),
)
_DOMAINS: Final = ("DROPBOX_API_DOMAIN", "DROPBOX_DOMAIN")
# What the SDK lets through where the answer is not one that it knows.
_SDK_ERRORS: Final = (
    DropboxException,
    ValidationError,
    AssertionError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
)
_HTTP_ERRORS: Final = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
# What is no address of a proxy; their texts quote it, with the password in it.
_BAD_PROXIES: Final = (
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,
    urllib3.exceptions.LocationValueError,
    urllib3.exceptions.ProxySchemeUnknown,
)
# What OpenSSL says of answers that are no TLS, in the words of its versions.
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"})
# OpenSSL's codes of certificates that are not valid yet, and no more: of a clock that is wrong, most of the time.
_NOT_NOW: Final = frozenset({9, 10})
# More than there are threads: urllib3 throws away, with a warning, what has no place in its pool.
_POOL_SIZE: Final = 256

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Answer:
    """The result of a call; for downloads with the response whose body is still to be read."""

    result: Any
    response: requests.Response | None = None

    def close(self) -> None:
        """Give up what is left of the body; after the whole of it, the connection stays in use. Idempotent."""
        if self.response is not None:
            self.response.close()


class Transport:
    """Sends requests and reads answers. Thread-safe; owns the HTTP pool; what it keeps for a thread is thread-local."""

    def __init__(self, *, api_host: str | None, ca_certs: str | None) -> None:
        self._activity = Activity()
        hosts = _hosts(api_host)
        plain_hosts = [host for scheme, host in hosts.values() if scheme == "http"]
        self._session = Session(self._activity, plain_hosts=plain_hosts, ca_certs=ca_certs, size=_POOL_SIZE)
        self._sdk = dropbox.Dropbox(
            # Every call brings its own header: the SDK's token is one for all threads and refreshed without a lock.
            oauth2_access_token="unused",
            session=self._session,
            max_retries_on_error=0,
            max_retries_on_rate_limit=0,
            user_agent=f"fs-dropbox/{__version__}",
        )
        self._sdk._host_map = {name: host for name, (_, host) in hosts.items()}
        self.api_host = hosts["api"][1]

    def exchange(
        self,
        route: Route,
        *,
        argument: str,
        headers: Mapping[str, str],
        waiter: Waiter,
        data: bytes | None,
        seconds: float,
    ) -> Answer:
        """Send one request and return its result. Raises ApiError or TransportError; repeats nothing.

        `seconds` is the longest wait for any single packet; what is no content is complete within `ANSWER_SECONDS`.
        """
        timeout = (min(CONNECT_SECONDS, seconds), seconds)
        self._activity.waiter = waiter
        name, style = route.name, route.style
        self._activity.is_content = style == "download"
        try:
            outcome = self._sdk.request_json_string(
                route.host, name, style, argument, "noauth", data, timeout=timeout, extra_headers=dict(headers)
            )
            if isinstance(outcome, RouteErrorResult):
                raise self._refusal(name)
        except TransportError as error:
            error.route = name
            raise
        except _HTTP_ERRORS as error:
            raise self._failure(name, waiter, error) from _quotable(error)
        except _SDK_ERRORS:
            raise self._refusal(name) from None  # the SDK's error tells no more, and may quote the token
        return self._answer(name, style, outcome.obj_result)

    def _answer(self, route: str, style: Style, result: str) -> Answer:
        response = self._activity.take()
        assert response is not None
        _logger.debug("%s: %d in %.3f s", route, response.status_code, response.elapsed.total_seconds())
        try:
            # Dropbox writes "null" where there is nothing to tell; others write nothing, and say so.
            is_void = not result and response.headers.get("content-length") == "0"
            return Answer(None if is_void else json.loads(result), response if style == "download" else None)
        except ValueError as error:
            response.close()
            kind: TransportKind = "protocol" if result.strip() else "cut"
            raise TransportError(kind, route=route, status=response.status_code) from error

    def post_form(
        self, path: str, form: Mapping[str, str], waiter: Waiter, seconds: float
    ) -> tuple[int, dict[str, Any]]:
        """Post a form to the API host; returns status and answer of what is neither 429 nor 5xx."""
        self._activity.waiter = waiter
        self._activity.is_content = False
        url = f"https://{self.api_host}/{path}"
        try:
            response = self._session.post(url, data=dict(form), timeout=(min(CONNECT_SECONDS, seconds), seconds))
        except TransportError as error:
            error.route = path
            raise
        except _HTTP_ERRORS as error:
            failure = self._failure(path, waiter, error)
            failure.was_sent = False  # a refresh changes nothing
            raise failure from _quotable(error)
        if response.status_code == 429 or response.status_code >= 500:
            refusal = self._refusal(path)
            if isinstance(refusal, TransportError):
                refusal.was_sent = False
            raise refusal
        self._activity.take()
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise TransportError("protocol", route=path, was_sent=False, status=response.status_code)
        return response.status_code, answer

    def read(self, route: str, answer: Answer, waiter: Waiter, size: int) -> bytes:
        """Return the next bytes of a download's body, at most `size`, none at its end; raises TransportError."""
        assert answer.response is not None
        raw = answer.response.raw
        connection = getattr(raw, "connection", None)
        if isinstance(connection, Tracked):
            connection.serve(waiter)
        try:
            if not isinstance(raw, urllib3.HTTPResponse):  # an adapter that stands in for the network
                return bytes(raw.read(size))
            # Without decoding, urllib3 keeps no copy; what asks for ranges or counts bytes asks for "identity".
            return bytes(raw.read(size, decode_content="content-encoding" in answer.response.headers))
        except _HTTP_ERRORS as error:
            raise self._failure(route, waiter, error, reading=True) from error

    def close(self) -> None:
        """Break off every request under way, refuse new ones, and close the pool. Idempotent."""
        self._session.connections.break_all()
        self._session.close()

    def _failure(self, route: str, waiter: Waiter, error: BaseException, *, reading: bool = False) -> TransportError:
        """Return what it means that there is no complete answer."""
        if waiter.interrupted_by is not None:
            interruption = waiter.interrupted_by
            return TransportError(interruption.kind, route=route, was_sent=self._activity.was_sent)
        kind = _kind(error, was_sent=self._activity.was_sent)
        if reading and kind == "reset":
            kind = "cut"
        return TransportError(
            kind, _detail(error), route=route, host=self._activity.host, was_sent=self._activity.was_sent
        )

    def _refusal(self, route: str) -> DropboxError:
        """Return what it means that there is an answer, but not the route's result."""
        response = self._activity.take()
        if response is None:
            return TransportError("protocol", route=route, was_sent=self._activity.was_sent)
        status = response.status_code
        request_id = response.headers.get("x-dropbox-request-id", "")
        retry_after = _retry_after(response)
        text = _text(response)
        if status >= 500:
            error = TransportError("server", f"status {status}", route=route, status=status)
            error.retry_after = retry_after
            return error
        if status == 400 and not text.lstrip().startswith("<"):  # a page is a proxy's
            kind = AuthError if "authorization" in text.lower() and "header" in text.lower() else ApiError
            return kind(route, ("bad_request",), status=status, request_id=request_id, message=text[:500])
        body = _object(text)
        refused = body.get("error")
        details: dict[str, Any] = refused if isinstance(refused, dict) else {}
        tag = tags(refused)
        if status == 429:
            seconds = _seconds(details.get("retry_after")) if retry_after is None else retry_after
            return ApiError(
                route, tag or ("too_many_requests",), status=status, request_id=request_id, retry_after=seconds
            )
        if status == 401:
            tag = tag or ("invalid_access_token",)  # a proxy's own refusal has no tag, and another status
        if status not in (401, 403, 409, 422) or not tag:
            return TransportError("protocol", f"status {status}", route=route, status=status)
        said = body.get("user_message")
        return (AuthError if status == 401 else ApiError)(
            route,
            tag,
            status=status,
            request_id=request_id,
            user_message=said.get("text", "") if isinstance(said, dict) else "",
            details=details,
        )


def _hosts(stand_in: str | None) -> dict[str, tuple[str, str]]:
    """Return scheme and place of each of Dropbox's hosts: one stand-in for them all, else what the SDK's variables say.

    The SDK reads these once, when it is imported; here they count when a filesystem is opened. Raises ValueError.
    """
    if stand_in is not None:
        match = re.fullmatch(STAND_IN, stand_in)
        if match is None:
            raise ValueError("api_host is a host, host:port, or http://host:port for a stand-in without TLS")
        return dict.fromkeys((name for name, _, _ in _HOSTS), (match["scheme"] or "https", match["netloc"]))
    domain = next(filter(None, map(os.environ.get, _DOMAINS)), None)
    hosts = {}
    for name, variable, constant in _HOSTS:
        known = [f"{name}{domain}"] if domain else [getattr(each, constant) for each in (dropbox_client, sdk_session)]
        changed = [host for host in known if host != f"{name}.dropboxapi.com"]  # by whoever has patched the SDK
        place = os.environ.get(variable) or (changed or known)[0]
        scheme, _, host = place.rpartition("://")
        hosts[name] = (scheme or "https", host.rstrip("/"))
    return hosts


def _text(response: requests.Response) -> str:
    """Return what can be had of an answer's body, and close it."""
    try:
        return response.content.decode("utf-8", "replace")
    except _HTTP_ERRORS:
        return ""
    finally:
        response.close()


def _object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(response: requests.Response) -> float | None:
    """Return the pause that an answer asks for: seconds, or a date (of proxies), by the clock of whoever wrote it."""
    asked = response.headers.get("retry-after", "")
    seconds = _seconds(asked)
    if seconds is not None or not asked:
        return seconds
    until, now = _date(asked), _date(response.headers.get("date", "")) or datetime.now(UTC)
    return None if until is None else max((until - now).total_seconds(), 0.0)


def _date(text: str) -> datetime | None:
    """Return the time that a header tells, None where it tells none."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _seconds(value: Any) -> float | None:
    """Return a number of seconds, None for what is no number that can be waited for."""
    try:
        seconds = float(value)
    except (ValueError, TypeError):
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _kind(error: BaseException, *, was_sent: bool) -> TransportKind:
    """Find the cause in the layers of exceptions that requests and urllib3 wrap around it."""
    causes = list(_causes(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if any(isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _NOT_NOW for cause in causes):
        return "clock"
    if has(ssl.SSLCertVerificationError) or (has(ssl.SSLError) and not was_sent and not has(ssl.SSLEOFError)):
        return "tls"
    if has(*_BAD_PROXIES, urllib3.exceptions.ProxyError, requests.exceptions.ProxyError):
        return "proxy"
    if has(urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.NewConnectionError):
        return "connect"
    if has(TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout):
        return "timeout"
    if has(urllib3.exceptions.IncompleteRead, requests.exceptions.ContentDecodingError):
        return "cut"
    return "reset"


def _detail(error: BaseException) -> str:
    """Say in words what happened, from the innermost cause that says anything."""
    causes = list(_causes(error))
    if any(isinstance(cause, _BAD_PROXIES) for cause in causes):
        return "that is no address of an HTTP proxy"
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate could not be verified: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            return "it speaks no TLS; the address of a stand-in that knows none begins with http://"
        if isinstance(cause, OSError) and not isinstance(cause, (requests.RequestException, ssl.SSLError)):
            text = cause.strerror or " ".join(str(each) for each in cause.args if isinstance(each, str))
            if text:
                return text[:1].lower() + text[1:]
    return type(causes[0]).__name__


def _quotable(error: BaseException) -> BaseException | None:
    """Return an exception as the cause of ours, unless its text may hold a secret."""
    return None if any(isinstance(cause, _BAD_PROXIES) for cause in _causes(error)) else error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those within it, outermost first."""
    queue: list[BaseException] = [error]
    seen: set[int] = set()
    while queue:
        current = queue.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        queue += [each for each in inner if isinstance(each, BaseException)]
