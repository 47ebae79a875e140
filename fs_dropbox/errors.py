"""What can go wrong between us and Dropbox, and the one table that turns it into PyFilesystem's errors.

Inside the package calls raise ApiError (Dropbox said no) or TransportError (nobody said anything useful); `fs_errors`
turns both into `fs.errors` with the caller's path and a reason in words for people. No text holds a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias

import fs.errors

from fs_dropbox import authorization, error_table
from fs_dropbox.conventions import literal, path_error

TransportKind: TypeAlias = Literal[
    "connect",
    "tls",
    "clock",
    "trust",
    "proxy",
    "timeout",
    "reset",
    "cut",
    "server",
    "protocol",
    "interrupted",
    "closed",
]

TRANSPORT_REASONS: Final[dict[TransportKind, str]] = {
    "connect": "Dropbox cannot be reached",
    "tls": "no secure connection to Dropbox",
    "clock": "no secure connection to Dropbox",
    "trust": "no secure connection to Dropbox: the CA certificates cannot be read",
    "proxy": "the proxy in front of Dropbox cannot be reached or refused the connection",
    "timeout": "Dropbox did not answer in time",
    "reset": "the connection to Dropbox broke",
    "cut": "the answer of Dropbox broke off",
    "server": "Dropbox has an internal problem",
    "protocol": "the answer was not one that Dropbox gives (is something else listening at its address?)",
    "interrupted": "the operation was cancelled",
    "closed": "the connection to Dropbox was closed",
}
NOT_TAKEN: Final = "what answers at the address of Dropbox does not take this call (is it Dropbox?)"
UNSETTLED: Final = "; whether it took place all the same is not known"
# What to look at where a filesystem cannot be opened; where a file of an open one fails, the network was there before.
_ADVICE: Final[dict[TransportKind, str]] = {
    "connect": "check the network, the firewall, and whether a proxy is needed (HTTPS_PROXY)",
    "timeout": "check the network, the firewall, and whether a proxy is needed (HTTPS_PROXY)",
    "tls": "where a proxy inspects connections, name its CA certificate with ca_certs or REQUESTS_CA_BUNDLE",
    "clock": "check the date and time of this machine",
    "trust": "check ca_certs, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE",
    "proxy": "check HTTPS_PROXY: its address, and the user name and password in it",
}
# An answer 4xx without a tag says that such a call is not taken, however often it is asked, and that nothing was done:
# by a server that does not have it, by a proxy that lets nobody through. But for these, which may be so for now alone.
_NOT_FOR_GOOD: Final = frozenset({408, 409, 425, 429, 499})
# Tags that ask for the same call again, later; internal_error may have done the work already.
_TRANSIENT_TAGS: Final = frozenset(
    {"too_many_requests", "too_many_write_operations", "internal_error", "retry_error", "in_progress"}
)
_SECRETS: Final = re.compile(
    r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+|\bsl\.[\w.-]{8,}|\b(?:refresh_token|client_secret|code)=[^&\s]+"
)


class VersionConflict(fs.errors.OperationFailed):
    """Someone else changed the file since the version that this change is based on; nothing was overwritten."""

    default_message = "'{path}' was changed by someone else meanwhile; nothing was overwritten"


class DropboxError(Exception):
    """A call to Dropbox failed: an `ApiError` or a `TransportError`."""

    route: str
    retry_after: float | None = None
    is_unsettled = False  # set where a change may have been carried out all the same

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later."""
        raise NotImplementedError

    @property
    def is_ambiguous(self) -> bool:
        """Whether the call may have been carried out all the same."""
        raise NotImplementedError

    @property
    def is_not_taken(self) -> bool:
        """Whether such a call may never be taken, where another one for the same purpose is."""
        raise NotImplementedError

    def explain(self) -> tuple[type[fs.errors.FSError], str]:
        """Return the class of the `fs.errors` error, and the reason in words for people."""
        raise NotImplementedError


class ApiError(DropboxError):
    """Dropbox refused a call.

    `tag` is the path of tags from the outside in, e.g. ("path", "conflict", "file"). Refusals that are no route's own
    have the tags of their body too: 401 ("expired_access_token",), 422 ("invalid_root",), 429 ("too_many_requests",);
    400 is ("bad_request",) with Dropbox's sentence as `message`. `details` is the error object as it came.
    """

    def __init__(
        self,
        route: str,
        tag: tuple[str, ...],
        *,
        status: int = 409,
        request_id: str = "",
        message: str = "",
        user_message: str = "",
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(route, tag)
        self.route = route
        self.tag = tag
        self.status = status
        self.request_id = request_id
        self.message = scrub(message)
        self.user_message = scrub(user_message)
        self.retry_after = retry_after
        self.path = ""  # the API path that it is about, where that is one
        self.details = details or {}
        self.lost_update = False  # set where the conflict is with the version that the call was to replace
        self.actor = ""  # on whose behalf the call was made: an e-mail address or id, where that is known
        self.root = ""  # the namespace that was asked for as the root
        self.holder = ""  # who has locked the file, in words for people, where that is why
        self.was_repeated = False  # set where an earlier try of the same call may have been carried out

    @property
    def is_rate_limit(self) -> bool:
        """Whether the call came too early: nothing was done."""
        return self.status == 429 or self.tag[-1:] == ("too_many_write_operations",)

    @property
    def is_transient(self) -> bool:
        return self.status == 429 or bool(_TRANSIENT_TAGS.intersection(self.tag[-1:]))

    @property
    def is_not_found(self) -> bool:
        """Whether there is nothing at the path that the call is about, or of its id or rev."""
        return self.tag[-1:] == ("not_found",)

    @property
    def is_ambiguous(self) -> bool:
        return self.tag[-1:] == ("internal_error",)

    @property
    def is_not_taken(self) -> bool:
        return self.tag == ("bad_request",)

    def explain(self) -> tuple[type[fs.errors.FSError], str]:
        if self.lost_update:
            return VersionConflict, "it was changed by someone else meanwhile; nothing was overwritten"
        if self.holder:
            return fs.errors.ResourceLocked, self.holder
        refusal = authorization.refusal(self.tag, self.message, self.details, self.actor)
        if refusal is not None:
            return error_table.NoAccess, refusal
        rule = error_table.find(self.route, self.tag)
        if rule is None:
            text = self.user_message or self.message or "/".join(self.tag) or f"status {self.status}"
            return fs.errors.OperationFailed, f"Dropbox refused: {text}"
        kind, text = rule
        if kind is fs.errors.ResourceLocked:
            holder = _lock_holder(self.details)
            text = f"locked by {holder}" if holder else text
        elif issubclass(kind, fs.errors.PermissionDenied):
            if self.status == 403 and self.user_message:
                text = self.user_message  # the tag is the same for a missing feature and for a quota that is used up
            text = authorization.named(text, self.actor, self.status, self.root)
        elif self.message and self.tag == ("bad_request",):
            text = f"{text}: {self.message}"
        elif self.user_message and self.tag[-1:] == ("other",):
            text = self.user_message
        return kind, text

    def __str__(self) -> str:
        details = [self.message] if self.message else []
        details += [f"request {self.request_id}"] if self.request_id else []
        return f"{self.route}: {'/'.join(self.tag)}" + (f" ({'; '.join(details)})" if details else "")


class AuthError(ApiError):
    """Dropbox does not accept the credentials, or not for this."""

    def __init__(self, route: str, tag: tuple[str, ...], *, status: int = 401, **others: Any) -> None:
        super().__init__(route, tag, status=status, **others)


class TransportError(DropboxError):
    """A call had no usable answer. `was_sent`: the request may have reached Dropbox and been carried out.

    `detail` says in words what happened, `host` where: of the proxy, where that is what failed.
    """

    def __init__(
        self,
        kind: TransportKind,
        detail: str = "",
        *,
        route: str = "",
        host: str = "",
        was_sent: bool = True,
        status: int | None = None,
    ) -> None:
        super().__init__(kind)
        self.kind: TransportKind = kind
        self.detail = scrub(detail)
        self.route = route
        self.host = host
        self.was_sent = was_sent
        self.status = status

    @property
    def is_transient(self) -> bool:
        return self.kind not in ("tls", "clock", "trust", "interrupted", "closed") and not self.is_not_taken

    @property
    def is_ambiguous(self) -> bool:
        return self.was_sent and not self.is_not_taken

    @property
    def is_not_taken(self) -> bool:
        status = self.status or 0
        return status == 501 or (400 <= status < 500 and status not in _NOT_FOR_GOOD)

    def explain(self) -> tuple[type[fs.errors.FSError], str]:
        details = ": ".join(detail for detail in (self.host, self.detail) if detail)
        not_taken = self.is_not_taken and self.kind != "proxy"
        text = (NOT_TAKEN if not_taken else TRANSPORT_REASONS[self.kind]) + (f" ({details})" if details else "")
        return fs.errors.OperationTimeout if self.kind == "timeout" else fs.errors.RemoteConnectionError, text

    def __str__(self) -> str:
        return (f"{self.route}: " if self.route else "") + reason(self)


def scrub(text: str) -> str:
    """Return a text without whatever looks like a token, secret or authorisation header."""
    return _SECRETS.sub("[secret]", text)


def tags(error: object) -> tuple[str, ...]:
    """Return the path of tags in an error object, from the outside in.

    Members that are unions nest under a key equal to the tag; UploadWriteFailed and RateLimitError under `reason`;
    text beside a tag (malformed_path) is no tag.
    """
    path: list[str] = []
    if isinstance(error, str):
        return (error,)
    while isinstance(error, dict):
        tag = error.get(".tag")
        if isinstance(tag, str):
            path.append(tag)
        inner = error.get(tag) if isinstance(tag, str) else None
        error = inner if isinstance(inner, dict) else error.get("reason")
    return tuple(path)


def reason(error: DropboxError) -> str:
    """Say what happened in words for people."""
    return error.explain()[1] + (UNSETTLED if error.is_unsettled else "")


def to_fs_error(error: DropboxError, path: str, target: str | None = None) -> fs.errors.FSError:
    """Return the `fs.errors` error for a failed call, with `reason`; `target` is the path of `to/…` errors."""
    failed_path = target if target is not None and isinstance(error, ApiError) and error.tag[:1] == ("to",) else path
    return path_error(error.explain()[0], failed_path, reason(error), cause=error)


@contextmanager
def fs_errors(path: str, *, target: str | None = None) -> Iterator[None]:
    """Raise what a call raises as `fs.errors` with the PyFilesystem path (and target) of the caller.

    So with the TimeoutError of whoever waits, beyond all bounds, for a call that another thread makes, and with the
    CancelledError where the filesystem was closed before that had begun.
    """
    try:
        yield
    except DropboxError as error:
        raise to_fs_error(error, path, target) from error
    except CancelledError as error:
        raise to_fs_error(TransportError("closed", was_sent=False), path, target) from error
    except TimeoutError as error:
        raise path_error(fs.errors.OperationTimeout, path, str(error), cause=error) from error


@contextmanager
def opening() -> Iterator[None]:
    """Raise what goes wrong while a filesystem is opened: CreateFailed where it is refused, RemoteConnectionError where
    Dropbox cannot be reached or does not take calls for now, with what to check."""
    try:
        yield
    except (DropboxError, ValueError) as error:
        text = str(error) if isinstance(error, ValueError) else reason(error)
        failed: fs.errors.FSError
        if isinstance(error, TransportError) and error.kind in _ADVICE:
            text = f"{text}; {_ADVICE[error.kind]}"
        if not isinstance(error, ValueError) and (isinstance(error, TransportError) or error.is_transient):
            failed = fs.errors.RemoteConnectionError(path="/", exc=error, msg=literal(text))
        else:
            failed = fs.errors.CreateFailed(literal(text), exc=error)
        vars(failed)["reason"] = text
        raise failed from error


def _lock_holder(details: object) -> str | None:
    """Find the name of a lock's holder, at whatever depth the error tells it."""
    if not isinstance(details, dict):
        return None
    name = details.get("lockholder_name")
    if isinstance(name, str):
        return name
    return next((found for inner in details.values() if (found := _lock_holder(inner))), None)
