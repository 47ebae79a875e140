"""`Caller`: carries out the calls of one account: token, member, path root, retries, interruption. Knows no paths."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fs_dropbox.api import auth, routes
from fs_dropbox.api.auth import Credentials, TokenSource
from fs_dropbox.api.retry import Governor, Retry, RetryPolicy, SystemClock, Traffic, Waiter
from fs_dropbox.api.routes import Route
from fs_dropbox.api.transport import Answer, Transport
from fs_dropbox.errors import ApiError, AuthError, TransportError

T = TypeVar("T")

# Dropbox says `expired` of a token that it still remembers.
_STALE_TOKEN: Final = (("expired_access_token",), ("invalid_access_token",))

_PATH_ROOT: Final = "Dropbox-API-Path-Root"

# One does, unless a call takes longer than a token lives.
_RENEWALS: Final = 2

# Clients of one account in one process share its brake.
_governors: Final[weakref.WeakValueDictionary[str, Governor]] = weakref.WeakValueDictionary()
_governors_lock: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Account:
    """Whose Dropbox it is. Where root and home differ, the account is part of a team space."""

    account_id: str
    email: str
    email_verified: bool
    name: str
    root_namespace_id: str
    home_namespace_id: str
    home_path: str
    is_team: bool


class Caller:
    """Carries out calls. Thread-safe; owned by the Client; owns the transport.

    `_lock` guards the table of calls under way (leaf). `_setup` is held while the account and its root are looked up,
    on purpose: one lookup for all.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        api_host: str | None,
        ca_certs: str | None,
        root: str,
        policy: RetryPolicy,
        timeout_seconds: float,
    ) -> None:
        if root not in ("auto", "home") and not str(root).isdecimal():
            raise ValueError(f"root is 'auto', 'home' or the id of a namespace, not {root!r}")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds is a number above 0, not {timeout_seconds!r}")
        self._credentials = credentials
        self._root = str(root)  # the id of a namespace is a number, and some write it as one
        self._timeout_seconds = timeout_seconds
        self._clock = SystemClock()
        self._transport = Transport(api_host=api_host, ca_certs=ca_certs)
        self._tokens = TokenSource(credentials, self._post_form)
        self.governor = _governor(f"{self._transport.api_host} {credentials.fingerprint()}")
        self._retry = Retry(policy, self.governor)
        self.on_root_change: Callable[[], None] = lambda: None  # called by the thread that learns of it
        self._current = threading.local()
        self._setup = threading.RLock()
        # guarded by _setup; replaced, never changed
        self._account: Account | None = None
        self._member_id: str | None = None
        self._headers: Mapping[str, str] | None = None
        self._lock = threading.RLock()  # finalizers of forgotten files take it, in any thread
        # guarded by _lock
        self._waiters: dict[Waiter, int] = {}
        self._closed = threading.Event()
        self._process = os.getpid()

    def rooted(self, namespace_id: str) -> Caller:
        """Return a caller whose paths start in a namespace: it shares everything with this one but that."""
        rooted = copy.copy(self)
        rooted._root, rooted._headers = namespace_id, None
        return rooted

    def call(
        self,
        route: Route,
        argument: Any,
        *,
        data: bytes | None = None,
        decode: Callable[[Any], T],
        settle: Callable[[], T | None] | None = None,
    ) -> T:
        """Return the decoded result of a call, repeated where that helps and does no harm (see `Retry.run`)."""
        return self.request(route, argument, data=data, receive=lambda answer: decode(answer.result), settle=settle)

    def request(
        self,
        route: Route,
        argument: Any,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        receive: Callable[[Answer], T],
        settle: Callable[[], T | None] | None = None,
        seconds: float | None = None,
    ) -> T:
        """Like `call`, with the answer itself for `receive`, whose failures are repeated too; closed after that."""
        text = _as_header(argument)
        longest = seconds or self._timeout_seconds

        with self.waiter() as waiter:

            def attempt(left: float) -> T:
                answer = self._send(
                    route, text, data, headers or {}, waiter, longest if seconds else min(longest, left)
                )
                try:
                    return receive(answer)
                except (LookupError, ValueError, TypeError, AttributeError) as error:
                    raise TransportError("protocol", f"{type(error).__name__}: {error}", route=route.name) from error
                finally:
                    answer.close()

            return self._retry.run(
                attempt,
                route=route.name,
                traffic=route.traffic,
                waiter=waiter,
                repeatable=route.repeatable,
                settle=settle,
            )

    def account(self, policy: RetryPolicy | None = None) -> Account:
        """Return whose account it is: one call, then remembered; raises AuthError when it is not the expected one.

        `policy` takes the place of the usual one for all that this takes.
        """
        with self._setup:
            if self._account is None:
                with self.waiter() as waiter:
                    waiter.policy = waiter.policy or policy
                    account = self.call(routes.CURRENT_ACCOUNT, None, decode=_decode_account)
                expected = self._credentials.email
                if expected and account.email.casefold() != expected.casefold():
                    raise AuthError(routes.CURRENT_ACCOUNT.name, ("wrong_account",))
                self._account = account
            return self._account

    @contextmanager
    def waiter(self) -> Iterator[Waiter]:
        """Register what this thread does, so that others can interrupt it; calls within calls share the outermost's."""
        outer: Waiter | None = getattr(self._current, "waiter", None)
        if outer is not None:
            yield outer
            return
        waiter = Waiter(self._clock)
        try:
            with self._lock:
                if self._closed.is_set() or os.getpid() != self._process:  # connections are of who has made them
                    raise TransportError("closed", was_sent=False)
                self._waiters[waiter] = threading.get_ident()
            self._current.waiter = waiter
            yield waiter
        finally:
            self._current.waiter = None
            waiter.on_interrupt = None
            self.governor.release(Traffic.WRITE, waiter)  # Ctrl-C may have come between its turn and its call
            with self._lock:
                self._waiters.pop(waiter, None)

    def pause(self, seconds: float) -> None:
        """Wait within a call; raises TransportError when interrupted."""
        with self.waiter() as waiter:
            waiter.wait(seconds)

    def read(self, route: Route, answer: Answer, size: int) -> bytes:
        """Return the next bytes of a download's body, at most `size`, none at its end; raises TransportError."""
        with self.waiter() as waiter:
            return self._transport.read(route.name, answer, waiter, size)

    def pause_after(self, failures: int) -> None:
        """Wait as long as the policy says after so many failures in a row."""
        self.pause(self._retry.policy.pause_seconds(failures, 0.5))

    def interrupt(self, thread_id: int) -> None:
        """End what a thread waits for here with TransportError("interrupted"); nothing when it waits for nothing."""
        with self._lock:
            waiters = [waiter for waiter, ident in self._waiters.items() if ident == thread_id]
        for waiter in waiters:
            waiter.interrupt(TransportError("interrupted"))

    def close(self) -> None:
        """End every call under way with TransportError("closed"), refuse new ones, close the pool. Idempotent."""
        with self._lock:
            self._closed.set()
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.interrupt(TransportError("closed"))
        self._transport.close()

    def _send(
        self, route: Route, text: str, data: bytes | None, headers: Mapping[str, str], waiter: Waiter, seconds: float
    ) -> Answer:
        """Send once; once more where only the token or the root was out of date."""
        renewals, rerooted = 0, False
        while True:
            token = self._tokens.token() if route.authorised else ""
            sent = {**headers, **self._headers_for(route), **({"Authorization": f"Bearer {token}"} if token else {})}
            try:
                return self._transport.exchange(
                    route, argument=text, headers=sent, waiter=waiter, data=data, seconds=seconds
                )
            except ApiError as error:
                if error.tag in _STALE_TOKEN and renewals < _RENEWALS and self._tokens.renew(token):
                    renewals += 1
                elif error.tag[:1] == ("invalid_root",) and not rerooted and self._change_root(error, route, sent):
                    rerooted = True
                else:
                    error.actor, error.root = self._actor(), self._root
                    raise

    def _actor(self) -> str:
        """Return on whose behalf calls are made, as far as that is known."""
        known, account = self._credentials, self._account
        return known.member or known.admin or known.email or (account.email if account is not None else "")

    def _headers_for(self, route: Route) -> Mapping[str, str]:
        if not route.authorised or route is routes.MEMBER_INFO:
            return {}
        if not route.rooted:
            return self._member_headers()
        with self._setup:
            if self._headers is None:
                self._headers = {**self._member_headers(), **self._root_headers()}
            return self._headers

    def _member_headers(self) -> Mapping[str, str]:
        member = self._credentials.member or self._credentials.admin
        if member is None:
            return {}
        header = "Dropbox-API-Select-User" if self._credentials.member else "Dropbox-API-Select-Admin"
        if member.startswith(auth.MEMBER_ID):
            return {header: member}
        with self._setup:
            if self._member_id is None:
                argument = {"members": [{".tag": "email", "email": member}]}
                self._member_id = self.call(routes.MEMBER_INFO, argument, decode=self._decode_member_id)
            return {header: self._member_id}

    def _decode_member_id(self, result: list[dict[str, Any]]) -> str:
        for member in result:
            with contextlib.suppress(KeyError):
                return str(member["profile"]["team_member_id"])
        unknown = AuthError(routes.MEMBER_INFO.name, ("member_not_found",))
        unknown.actor = self._actor()
        raise unknown

    def _root_headers(self) -> Mapping[str, str]:
        if self._root == "home":
            if self._credentials.email:
                self.account()
            return {}
        if self._root != "auto":
            return {_PATH_ROOT: json.dumps({".tag": "namespace_id", "namespace_id": self._root})}
        account = self.account()
        if account.root_namespace_id == account.home_namespace_id:
            return {}
        return _root_header(account.root_namespace_id)

    def _change_root(self, error: ApiError, route: Route, sent: Mapping[str, str]) -> bool:
        """Follow the account to the root that a 422 names; False where that is not ours to do, or where the call is not
        to be made there: a change is meant for what its path was in the root that it was sent to."""
        root = error.details.get("invalid_root")
        namespace_id = root.get("root_namespace_id") if isinstance(root, dict) else None
        if self._root != "auto" or not isinstance(namespace_id, str):
            return False
        header = _root_header(namespace_id)
        with self._setup:
            self._account = None
            self._headers = {**self._member_headers(), **header}
        self.on_root_change()
        if route.traffic is Traffic.WRITE and _PATH_ROOT in sent and sent[_PATH_ROOT] != header[_PATH_ROOT]:
            error.tag = ("invalid_root", "followed")
            return False
        return True

    def _post_form(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        with self.waiter() as waiter:
            seconds = self._timeout_seconds
            if waiter.deadline is not None:
                seconds = min(seconds, max(waiter.deadline - self._clock.monotonic(), 0.1))
            return self._transport.post_form(auth.ROUTE, form, waiter, seconds)


def _governor(name: str) -> Governor:
    with _governors_lock:
        governor = _governors.get(name)
        if governor is None:
            governor = _governors[name] = Governor()
        return governor


def _forget_governors() -> None:
    """Begin a forked process without brakes: whoever has slots there is a thread of its parent, and returns none."""
    _governors.clear()
    _governors_lock.release()


os.register_at_fork(
    before=_governors_lock.acquire, after_in_parent=_governors_lock.release, after_in_child=_forget_governors
)


def _root_header(namespace_id: str) -> Mapping[str, str]:
    return {_PATH_ROOT: json.dumps({".tag": "root", "root": namespace_id})}


def _as_header(argument: Any) -> str:
    """Return an argument as JSON that may travel in a header: ASCII, with DEL escaped as well."""
    return json.dumps(argument, separators=(",", ":")).replace("\x7f", "\\u007f")


def _decode_account(result: dict[str, Any]) -> Account:
    root = result.get("root_info") or {}  # stand-ins may not tell of it: then it is no team's
    home_namespace_id = root.get("home_namespace_id") or ""
    return Account(
        account_id=result["account_id"],
        email=result["email"],
        email_verified=bool(result.get("email_verified")),
        name=(result.get("name") or {}).get("display_name") or result["email"],
        root_namespace_id=root.get("root_namespace_id") or home_namespace_id,
        home_namespace_id=home_namespace_id,
        home_path=root.get("home_path") or "",
        is_team=result.get("team") is not None,
    )
