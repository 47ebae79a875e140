"""`Failures`: the consequences of a failed request: the reply, the log line, a line for the person at the client."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from fs.errors import InvalidPath, ResourceNotFound

from sftp_gateway.files.handles import Handle
from sftp_gateway.sftp import packets
from sftp_gateway.sftp.events import Events
from sftp_gateway.sftp.packets import Extension, Kind, OpenFlag, Status
from sftp_gateway.sftp.parsing import Request
from sftp_gateway.sftp.status import EXISTS, EndOfDataError, is_unexpected, status_of

_EXTENSIONS = frozenset(Extension)  # strings are no members of an Enum before Python 3.12
_QUIET = (Status.EOF, Status.NO_SUCH_FILE)
_TOLD = (Status.FAILURE, Status.PERMISSION_DENIED)
_CHANGING = {Kind.OPEN, Kind.CLOSE, Kind.MKDIR, Kind.RMDIR, Kind.REMOVE, Kind.RENAME, Kind.EXTENDED, Kind.WRITE}
_MAKING: set[int | str] = {Kind.MKDIR, Kind.RENAME, Kind.CLOSE, Extension.POSIX_RENAME, Extension.COPY_DATA}


class Failures:
    """Reports errors to the client and to the log. Owned by the `Operations` of a channel. Thread-safe: no state."""

    def __init__(self, events: Events, *, tell: Callable[[str], None], reads_texts: bool) -> None:
        """`tell` shows a line to the person at the client, as some clients do not show reasons.

        A client that `reads_texts` recognises a missing directory by the exact words of OpenSSH, and then creates it.
        """
        self._events = events
        self._tell = tell
        self._reads_texts = reads_texts

    def reply(self, request: Request, path: str, error: BaseException, handle: Handle | None = None) -> bytes:
        """Return the STATUS reply for an error at a client's path ("" if unknown), and log the error.

        If consecutive requests to one handle fail for the same reason, that is logged once.
        """
        if isinstance(error, EndOfDataError):
            return packets.status(request.id, Status.EOF, "end of file")
        if (isinstance(error, InvalidPath) or request.wrong_name) and not _makes(request):
            error = ResourceNotFound(path)  # nothing can have that name; Finder looks for its files everywhere
        code, text = status_of(error, path)
        if is_unexpected(error):
            text += f" in {_name(request)}, of which the gateway's log tells more"
        is_repeated = handle is not None and handle.failed_with == text
        if not is_repeated and (code not in _QUIET or (code == Status.NO_SUCH_FILE and _makes(request))):
            if handle is not None:
                handle.failed_with = text
            is_expected = request.kind == Kind.MKDIR and text.endswith(f": {EXISTS}")  # clients try it just in case
            trace = "".join(traceback.format_exception(error)) if is_unexpected(error) else None
            self._events.on_failure(_name(request), path, text, is_expected=is_expected, trace=trace)
            if code in _TOLD and request.kind in _CHANGING and not is_expected:
                self._tell(f"sftp-gateway: {text}")
        if code == Status.NO_SUCH_FILE and self._reads_texts:
            text = "No such file"
        return packets.status(request.id, code, text)


def _makes(request: Request) -> bool:
    """Return whether a request gives something a name."""
    if request.kind == Kind.OPEN:
        return bool(request.flags & ~OpenFlag.READ)
    return (request.extension or request.kind) in _MAKING


def _name(request: Request) -> str:
    """Return the name of a request for the log: for a known extension, the extension's own."""
    if request.extension in _EXTENSIONS:
        return request.extension.partition("@")[0]
    try:
        return Kind(request.kind).name.lower()
    except ValueError:
        return f"request {request.kind}"
