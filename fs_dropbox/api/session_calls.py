"""`SessionCalls`: the API's calls that bring content into upload sessions. Nothing becomes visible. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fs_dropbox.api import results, routes
from fs_dropbox.api.calls import Caller
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.errors import ApiError


class SessionCalls:
    """The part of Client that takes no lock in Dropbox. Thread-safe, lock-free."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def session_start(self) -> str:
        """Start an upload session that takes appends in any order, where there are such."""
        try:
            return self._start({"close": False, "session_type": {".tag": "concurrent"}})
        except ApiError as error:
            if not error.is_not_taken:
                raise
        return self._start({"close": False})  # to a stand-in that knows sequential ones alone

    def session_upload(self, data: bytes) -> str:
        """Bring a whole content into a session of its own, closed (at most 150 MiB)."""
        return self._start({"close": True, "content_hash": ContentHash(data).hexdigest()}, data)

    def _start(self, argument: dict[str, Any], data: bytes = b"") -> str:
        return self._caller.call(
            routes.SESSION_START, argument, data=data, decode=lambda result: str(result["session_id"])
        )

    def session_append(self, session_id: str, offset: int, data: bytes, close: bool) -> None:
        """Add bytes to a session; in a concurrent one at multiples of 4 MiB, and as many, but for the one that closes.

        An append whose answer was lost is sent again; where the session tells that it has the bytes, all is well.
        """
        begin, end = offset, offset + len(data)
        while True:
            part = data[begin - offset :]
            cursor = {"session_id": session_id, "offset": begin}
            argument = {"cursor": cursor, "close": close, "content_hash": ContentHash(part).hexdigest()}
            try:
                self._caller.call(routes.SESSION_APPEND, argument, data=part, decode=lambda _: None)
                return
            except ApiError as error:
                correct = error.details.get("correct_offset")
                if error.was_repeated and ((close and error.tag == ("closed",)) or correct == end):
                    return
                if not error.was_repeated or not isinstance(correct, int) or not begin < correct < end:
                    raise
                begin = correct

    def session_start_batch(self, count: int) -> list[str]:
        """Start sequential sessions, up to 1000."""
        argument = {"num_sessions": count, "session_type": {".tag": "sequential"}}
        return self._caller.call(
            routes.SESSION_START_BATCH, argument, decode=lambda result: [str(each) for each in result["session_ids"]]
        )

    def session_append_batch(self, parts: Sequence[tuple[str, bytes]]) -> list[ApiError | None]:
        """Give new sessions their whole content and close them; returns None or the error of each."""
        entries = [
            {"cursor": {"session_id": session_id, "offset": 0}, "length": len(data), "close": True}
            for session_id, data in parts
        ]
        body = b"".join(data for _, data in parts)
        argument = {"entries": entries, "content_hash": ContentHash(body).hexdigest()}
        route = routes.SESSION_APPEND_BATCH
        return self._caller.call(
            route,
            argument,
            data=body,
            decode=lambda result: [results.failure(route.name, entry) for entry in result["entries"]],
        )
