"""The one mechanism for every API call: route, host, authentication, scope, headers, argument, call, answer.

Enforces the attributes of routes.json, so that route functions deal with their own semantics only.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from email.utils import formatdate
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.faults import Fault
from fs_dropbox.emulator.http import DroppedError, Request, Response
from fs_dropbox.emulator.meter import Record
from fs_dropbox.emulator.model.errors import (
    BadArgumentError,
    BadRequestError,
    CallError,
    PlainError,
    RateLimitError,
    RouteError,
    union,
)
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.answers import (
    JSON_TYPE,
    bad_type,
    download_response,
    failure_response,
    json_response,
    knows,
    length_of,
    text_response,
)
from fs_dropbox.emulator.web.authorize import authorize
from fs_dropbox.emulator.web.context import Context, Download
from fs_dropbox.emulator.web.cors import answer_preflight, is_preflight, open_up
from fs_dropbox.emulator.web.registry import Attributes, PageFunction, RouteFunction
from fs_dropbox.emulator.web.specification import check_argument

log = logging.getLogger(__name__)

API_PREFIX = "/2/"
CORS_JSON = "text/plain; charset=dropbox-cors-hack"
RPC_TYPES = (JSON_TYPE, "application/json; charset=utf-8", CORS_JSON)
UPLOAD_TYPES = ("application/octet-stream", CORS_JSON)
LISTINGS = ("files/list_folder", "files/list_folder/continue")
NO_JSON = "could not decode input as JSON"
NO_ARGUMENT = 'Must provide HTTP header "Dropbox-API-Arg" or URL parameter "arg".'
MAX_JSON_BYTES = 8 << 20
MIN_PACED_BYTES = 65536  # shorter answers are a matter of the delay, not of the bandwidth


class Dispatcher:
    """Answers requests with the functions that are registered. Stateless; thread-safe."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._attributes = registry.load_attributes()
        if registry.routes.keys() != self._attributes.keys():
            both = registry.routes.keys() ^ self._attributes.keys()
            raise ValueError(f"not both in routes.json and in routes: {both}")

    def __call__(self, request: Request) -> Response:
        """Answer a request; raises DroppedError when a fault says so."""
        if is_preflight(request):
            return answer_preflight(request)
        response = self._answer(request)
        response.headers["Date"] = formatdate(self._service.state.clock(), usegmt=True)
        open_up(request, response)
        return response

    def _answer(self, request: Request) -> Response:
        if not request.path.startswith(API_PREFIX):
            return self._answer_page(request)
        route = request.path[len(API_PREFIX) :].rstrip("/")
        if route not in registry.routes:
            return text_response(400, f'Unknown API function: "{route}", to the emulator at least')
        return _Call(self._service, route, self._attributes[route], registry.routes[route], request).answer()

    def _answer_page(self, request: Request) -> Response:
        path = request.path
        candidates = [(m, prefix) for (m, prefix) in registry.pages if path == prefix or path.startswith(prefix + "/")]
        matching = [c for c in candidates if c[0] == request.method] or [
            c for c in candidates if (c[0], request.method) == ("GET", "HEAD")
        ]
        if not matching:
            return text_response(405 if candidates else 404, "Method not allowed" if candidates else "Not found")
        key = max(matching, key=lambda candidate: len(candidate[1]))
        if key[1].startswith("/_emulator"):
            return registry.pages[key](self._service, request)
        return _Page(self._service, key[1].lstrip("/"), registry.pages[key], request).answer()


class _Measured:
    """A request that is counted, delayed and struck by faults."""

    def __init__(self, service: Service, route: str, request: Request) -> None:
        self.service = service
        self.route = route
        self.request = request
        self.argument: Any = None
        self.account_id: str | None = None
        self.fault: Fault | None = None

    def answer(self) -> Response:
        """Return the answer, whatever happens."""
        service = self.service
        begin = time.monotonic()
        service.meter.begin(self.route)
        self.request.pace = service.limits.pace(service.limits.latency.upload_bytes_per_second)
        try:
            response = self._answer_or_fault()
            service.limits.hold_back()
        except BaseException:
            self._note(0, 0, begin)
            service.meter.end(self.route)
            raise
        sent = length_of(response) if response.cut_at is None else response.cut_at
        self._note(response.status, sent, begin)
        response.headers.setdefault("X-Dropbox-Request-Id", secrets.token_hex(16))
        response.headers.setdefault("X-Server-Response-Time", str(int((time.monotonic() - begin) * 1000)))
        response.headers.setdefault("X-Dropbox-Response-Origin", "far_remote")
        response.headers.setdefault("Server", "dropbox-emulator")
        pace = service.limits.pace(service.limits.latency.download_bytes_per_second) if sent > MIN_PACED_BYTES else None

        def on_block(size: int) -> None:
            service.meter.sent(self.route, size)
            if pace is not None:
                pace(size)

        response.on_block = on_block
        response.on_end = lambda: service.meter.end(self.route)
        return response

    def _note(self, status: int, sent: int, begin: float) -> None:
        seconds = time.monotonic() - begin
        received = self.request.bytes_read
        self.service.meter.note(Record(self.route, self.argument, status, received, sent, seconds, self.account_id))

    def _answer_or_fault(self) -> Response:
        try:
            response = self.work()
        except CallError as failure:
            response = self.failure_response(failure)
        except DroppedError:
            raise
        except Exception:
            log.exception("%s failed", self.route)
            response = text_response(500, "Internal Server Error")
        return self._spoil(response)

    def work(self) -> Response:
        """Do the work and return the answer."""
        raise NotImplementedError

    def failure_response(self, failure: CallError) -> Response:
        """Return the answer for a failure."""
        return failure_response(failure, self.route)

    def strike(self, argument_text: str) -> None:
        """Wait as long as the work takes, then let the fault for this call strike, if one strikes before the work."""
        self.service.limits.delay(self.route)
        self.fault = fault = self.service.faults.take(self.route, argument_text)
        if fault is None:
            return
        kind = fault.kind
        if kind in ("cut_request", "reset"):
            self._read_up_to(fault.get("at_byte", 0))
            raise DroppedError(reset=kind == "reset")
        if kind == "late":
            self.request.detach(hang_up=fault.get("hang_up", True))
        if kind == "late" or (kind == "stall" and fault.get("at", "request") == "request"):
            self.service.faults.stall(fault)
        elif kind == "rate_limit":
            form = fault.get("form", self.service.options.rate_limit_form)
            reason = fault.get("reason", "too_many_requests")
            raise RateLimitError(reason, fault.get("retry_after", 1), as_text=form == "text")
        elif kind == "server_error":
            raise PlainError(fault.get("status", 500), fault.get("text", ""), retry_after=fault.get("retry_after"))
        elif kind in _DECLARED_ERRORS:
            status, tag = _DECLARED_ERRORS[kind]
            raise RouteError(union(tag), status=status)
        elif kind == "error":
            raise RouteError(fault.get("error"), status=fault.get("status", 409))

    def _read_up_to(self, size: int) -> None:
        if size <= 0:
            return
        for _ in self.request.blocks():
            if self.request.bytes_read >= size:
                return

    def _spoil(self, response: Response) -> Response:
        fault = self.fault
        if fault is None:
            return response
        if fault.kind == "ambiguous":
            response.close()
            if fault.get("status") is None:
                self.request.drain()
                raise DroppedError(reset=bool(fault.get("reset")))
            return text_response(fault.get("status"), fault.get("text", ""))
        if fault.kind == "blank_body":
            response.close()
            return Response(response.status, {"Content-Type": JSON_TYPE})
        if fault.kind == "stall" and fault.get("at") == "answer":
            self.service.faults.stall(fault)
        elif fault.kind == "cut_body" or (fault.kind == "stall" and fault.get("at") == "body"):
            response.cut_at = fault.get("at_byte", length_of(response) // 2)
            if fault.kind == "stall":
                response.before_cut = lambda: self.service.faults.stall(fault)
        elif fault.kind in ("corrupt_body", "slow_body"):
            length = length_of(response)
            if isinstance(response.body, bytes):
                response.length = length
            response.body = self.service.faults.spoil(fault, response.body, length)
        return response


_DECLARED_ERRORS = {
    "expired_token": (401, "expired_access_token"),
    "invalid_token": (401, "invalid_access_token"),
    "cursor_reset": (409, "reset"),
}


class _Page(_Measured):
    """A request outside of the API functions."""

    def __init__(self, service: Service, name: str, function: PageFunction, request: Request) -> None:
        super().__init__(service, name, request)
        self._function = function

    def work(self) -> Response:
        self.strike(self.request.path)
        return self._function(self.service, self.request)


class _Call(_Measured):
    """A call of an API function."""

    def __init__(
        self, service: Service, route: str, attributes: Attributes, function: RouteFunction, request: Request
    ) -> None:
        super().__init__(service, route, request)
        self._attributes = attributes
        self._function = function
        self._place = "request body"

    def work(self) -> Response:
        caller = self.request.headers.get("authorization", "")
        self.service.limits.admit(caller)
        raw = self._raw_argument()
        if self.route not in LISTINGS:
            return self._call(raw)
        with self.service.limits.alone((self.route, caller, raw)):
            return self._call(raw)

    def _call(self, raw: str) -> Response:
        attributes = self._attributes
        self.strike(raw)
        self._check_form()
        context = Context(self.service, self.route, attributes, self.request, fault=self.fault)
        with self.service.state.lock:
            authorize(context)
        self.account_id = context.account_id
        result = self._function(context, self._parse(raw))
        if isinstance(result, Download):
            response = download_response(result)
            if result.etag is not None and knows(self.request.headers.get("if-none-match", ""), result.etag):
                response.close()
                return Response(304, {"ETag": result.etag})
            return response
        return json_response(200, result)

    def failure_response(self, failure: CallError) -> Response:
        response = failure_response(failure, self.route, self._place)
        if self._attributes.host == "content" and isinstance(failure, RouteError):
            response.reason = failure.summary
        return response

    def _raw_argument(self) -> str:
        request = self.request
        if self._attributes.style == "rpc":
            try:
                return request.read(MAX_JSON_BYTES).decode()
            except ValueError:
                raise BadArgumentError(NO_JSON) from None
        self._place = 'HTTP header "Dropbox-API-Arg"'
        argument = request.headers.get("dropbox-api-arg")
        if argument is None:
            self._place = 'URL parameter "arg"'
            return request.query.get("arg", "")
        try:
            # The documentation wants ASCII, but the service takes UTF-8 as well: rclone sends it.
            return argument.encode("latin-1").decode()
        except UnicodeDecodeError:
            raise BadArgumentError(NO_JSON) from None

    def _check_form(self) -> None:
        request, style, host = self.request, self._attributes.style, self._attributes.host
        name = request.host.lower()
        if name.endswith((".dropboxapi.com", ".dropbox.com")) and name.split(".")[0] != host:
            raise BadRequestError(f"This function is on {host}.dropboxapi.com, not on {name}.")
        if request.method != "POST" and not (style == "download" and request.method in ("GET", "HEAD")):
            raise BadRequestError(f"Your request used the HTTP method {request.method}, use POST.")
        given = re.sub(r"\s*;\s*", "; ", request.headers.get("content-type", "").lower())
        if style == "rpc" and given not in RPC_TYPES and (given or request.length):
            raise BadRequestError(bad_type(given, RPC_TYPES))
        if style == "upload" and given not in UPLOAD_TYPES:
            raise BadRequestError(bad_type(given, UPLOAD_TYPES))
        if style == "download" and given not in ("", "text/plain", "text/plain; charset=utf-8", *UPLOAD_TYPES):
            raise BadRequestError(bad_type(given, ("", "text/plain; charset=utf-8", *UPLOAD_TYPES)))
        if style == "download" and next(iter(request.blocks()), None) is not None:
            raise BadRequestError("The request body is supposed to be empty, but isn't.")

    def _parse(self, raw: str) -> Arguments:
        is_absent = not raw and (self._attributes.style != "rpc" or not self.request.headers.get("content-type"))
        try:
            value = None if is_absent else json.loads(raw)
            if "\\ud" in raw.lower():  # half of a surrogate pair is no character
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise BadArgumentError(NO_JSON) from None
        self.argument = value
        try:
            check_argument(self.route, value)
        except BadArgumentError:
            if is_absent and self._attributes.style != "rpc":
                raise BadRequestError(NO_ARGUMENT) from None
            raise
        return Arguments(value or {})
