"""One connection, in the form of answers to paramiko's questions: who may sign in, and which channels may be opened."""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_RESOURCE_SHORTAGE,
    OPEN_SUCCEEDED,
)
from paramiko.server import InteractiveQuery

from sftp_gateway.files.tree import Rights
from sftp_gateway.logs import SessionLog
from sftp_gateway.requests.channel import SFTPChannel
from sftp_gateway.serving.accounts import AccountRefusedError, AccountUnreachableError, Lease, RootMissingError
from sftp_gateway.serving.services import Services
from sftp_gateway.serving.users import ELSEWHERE, Login, UserError, fingerprint, is_mistaken, shown_name
from sftp_gateway.ssh.algorithms import NOTHING_IN_COMMON
from sftp_gateway.ssh.transport import (
    DISCONNECT_BY_APPLICATION,
    DISCONNECT_SERVICE_NOT_AVAILABLE,
    DISCONNECT_TOO_MANY_CONNECTIONS,
    SFTP_ONLY,
    UNTRUSTED_PROXY,
    BoundedTransport,
)

MAX_CHANNELS = 16
SIGN_IN_CHANGED = "signing in here has changed"
_ABORT_SECONDS = 600.0
_QUIET_SECONDS = 2.0
_HOW_TO = "; the credentials of an app are APP_KEY~APP_SECRET, with a refresh token as the password"


_Check = TypeVar("_Check", bound=Callable[..., Any])


def _answers(refusal: object) -> Callable[[_Check], _Check]:
    """Return `refusal` if a bug makes a check fail, and log the bug: paramiko would end the connection silently."""

    def decorate(check: _Check) -> _Check:
        @functools.wraps(check)
        def guarded(self: Session, *arguments: Any) -> Any:
            try:
                return check(self, *arguments)
            except Exception:  # noqa: BLE001 - whatever it is, it is logged and refused
                self.log.log_bug(check.__name__)
                return refusal

        return cast(_Check, guarded)

    return decorate


class Session(paramiko.ServerInterface):
    """Answers paramiko's questions about one connection. paramiko calls `check_*` only in the transport's thread.

    Owned by `SFTPGateway`; its watch thread reads the public attributes.
    """

    def __init__(self, services: Services, name: str, address: str) -> None:
        self.log = SessionLog(name, address, services.listeners)
        self.name = name
        self.address = address
        self.started_at = time.monotonic()
        self.signed_in_at: float | None = None
        self.transport: BoundedTransport
        self._services = services
        self._prompted_name: str | None = None
        self._attempted = ""  # the last name tried, with a key or a password
        self._refused_keys: list[str] = []
        self._refused_attempts: set[bytes] = set()
        self._explained = False
        self._method = ""
        self._login: Login | None = None
        self._lease: Lease | None = None
        self._lock = threading.Lock()
        # guarded by _lock
        self._channels: list[SFTPChannel] = []

    @property
    def login(self) -> Login | None:
        """The login that was granted; None before that."""
        return self._login if self.signed_in_at is not None else None

    @property
    def client(self) -> str:
        """What the client calls itself, shortened."""
        return self.transport.remote_version.removeprefix("SSH-2.0-")[:64]

    @property
    def channels(self) -> list[SFTPChannel]:
        """The SFTP channels of this connection; some may have ended."""
        with self._lock:
            return self._channels

    @property
    def idle_seconds(self) -> float:
        """The time since the last activity on a channel, or since the login if there was none."""
        last = max((channel.last_activity for channel in self.channels), default=0.0)
        return time.monotonic() - max(last, self.signed_in_at or self.started_at)

    @property
    def busy(self) -> bool:
        """Whether the client is active: it waits for an answer, or has just received one."""
        channels = [channel for channel in self.channels if not channel.wait(0)]
        return any(channel.is_busy for channel in channels) or (bool(channels) and self.idle_seconds < _QUIET_SECONDS)

    def drain(self, seconds: float) -> None:
        """Let current requests finish for up to `seconds`, and accept no new ones."""
        for channel in self.channels:
            channel.stop(seconds)

    # Authentication.

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "publickey,password,keyboard-interactive"

    def check_auth_none(self, username: str) -> int:  # noqa: ARG002
        """Refuse without counting a failed login: clients use this request to ask which methods there are."""
        return AUTH_FAILED

    @_answers(AUTH_FAILED)
    def check_auth_password(self, username: str, password: str | bytes) -> int:
        return self._check_password(username, password, "password")

    def check_auth_interactive(self, username: str, submethods: str | bytes) -> int | InteractiveQuery:  # noqa: ARG002
        self._prompted_name = username
        return InteractiveQuery("", "", ("Password: ", False))

    @_answers(AUTH_FAILED)
    def check_auth_interactive_response(self, responses: list[str]) -> int | InteractiveQuery:
        name, self._prompted_name = self._prompted_name, None
        if name is None or len(responses) != 1:
            return AUTH_FAILED
        return self._check_password(name, responses[0], "keyboard-interactive")

    @_answers(AUTH_FAILED)
    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """Return whether the key fits; paramiko asks before it checks a signature, and when clients only probe."""
        self._attempted = username
        blob = key.asbytes()
        try:
            login = self._services.users.check_key(username, blob, self.address)
        except UserError as error:
            return self._refuse_misconfigured(error)
        if login is None:
            what = fingerprint(blob) if blob else "of an unsupported kind"
            is_elsewhere = self._services.users.is_elsewhere(username, self.address)
            self._refused_keys.append(f"{what} ({ELSEWHERE})" if is_elsewhere else what)
            return AUTH_FAILED
        self._login, self._method = login, f"publickey {fingerprint(blob)}"
        return AUTH_SUCCESSFUL

    def _check_password(self, name: str, password: str | bytes, method: str) -> int:
        self._attempted = name
        if isinstance(password, bytes):
            password = password.decode("utf-8", "surrogateescape")
        attempt = hashlib.sha256(f"{name}\0{password}".encode("utf-8", "surrogatepass")).digest()
        if attempt in self._refused_attempts:  # by another method: OpenSSH tries both with a password typed once
            return AUTH_FAILED
        try:
            login = self._services.users.check_password(name, password, self.address)
        except UserError as error:
            return self._refuse_misconfigured(error)
        if login is None:
            reason = self._services.users.why_refused(name, self.address) + (_HOW_TO if is_mistaken(name) else "")
            return self._refuse(name, attempt, method, reason)
        self._login, self._method = login, method
        if login.proven:
            return AUTH_SUCCESSFUL
        self.log.knows(login.shown, login.secrets)
        try:
            self._lease = self._services.accounts.acquire(login.url)
        except AccountRefusedError as error:
            return self._refuse(name, attempt, method, f"{login.storage} refused the credentials: {error}")
        except AccountUnreachableError as error:
            self._turn_away(f"{login.storage} cannot be reached", error)
            return AUTH_FAILED
        return AUTH_SUCCESSFUL

    def _refuse(self, name: str, attempt: bytes, method: str, reason: str) -> int:
        """Count and log a failed login."""
        self._explained = True
        self._refused_attempts.add(attempt)
        self.log.log("login_failed", level=logging.WARNING, user=shown_name(name), method=method, reason=reason)
        if self._services.gatekeeper.fail(name, self.address, attempt):
            self.log.log("ban", level=logging.WARNING, reason="too many failed logins from this address")
            self.transport.disconnect(DISCONNECT_SERVICE_NOT_AVAILABLE, "too many failed logins")
        return AUTH_FAILED

    def _refuse_misconfigured(self, error: UserError) -> int:
        self._turn_away("this user is misconfigured", error)
        return AUTH_FAILED

    def _turn_away(self, reason: str, error: Exception) -> None:
        """End the connection for a reason that no other password would change; not counted as a failed login."""
        self._explained = True
        user = shown_name(self._attempted)
        detail = str(error)
        text = detail if detail.startswith(reason) else f"{reason}: {detail}"
        self.log.log("login_refused", level=logging.ERROR, user=user, reason=text)
        self.transport.disconnect(DISCONNECT_SERVICE_NOT_AVAILABLE, f"{reason}, try again later")

    @_answers(None)
    def signed_in(self) -> None:
        """Record the login that paramiko has just granted. In the transport's thread."""
        login = self._login
        if login is None:
            raise RuntimeError("signed in without a login")
        self.log.knows(login.shown, login.secrets)
        if not self._services.gatekeeper.sign_in(login.name, self.address, maximum=login.max_sessions):
            self._explained = True
            self.log.log("login_refused", level=logging.WARNING, reason="too many sessions of this user")
            self.transport.disconnect(DISCONNECT_TOO_MANY_CONNECTIONS, "too many sessions of this user")
            return
        self.signed_in_at = time.monotonic()
        self.log.log("login", method=self._method, client=self.client, rights=login.rights)
        if not self._services.users.still_grants(login):  # it was checked just before that changed
            self.log.log("ended", reason=SIGN_IN_CHANGED)
            self.transport.disconnect(DISCONNECT_BY_APPLICATION, SIGN_IN_CHANGED)

    # Channels.

    @_answers(OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)
    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        login = self.login
        if kind != "session" or login is None:
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        has_room = self.transport.open_channels < self._most_channels(login)
        return OPEN_SUCCEEDED if has_room else OPEN_FAILED_RESOURCE_SHORTAGE

    def _most_channels(self, login: Login) -> int:
        """Return how many channels this connection may have: only one while the shared room is full."""
        return 1 if self._services.room.is_full(login.name) else MAX_CHANNELS

    def check_channel_pty_request(self, *arguments: object) -> bool:  # noqa: ARG002
        """Agree, so that the client then asks for a shell and is sent the reason why there is none."""
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        self.transport.refuse(channel, SFTP_ONLY)
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if command.split(b" ", 1)[0] == b"scp":
            self.transport.refuse(channel, SFTP_ONLY + " Use scp without -O.", as_scp=True)
        else:
            self.transport.refuse(channel, SFTP_ONLY)
        return True

    @_answers(False)
    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        served = [known for known in self.channels if not known.wait(0)]  # includes closed ones that still have work
        taken = any(known.channel is channel for known in self.channels)
        login = self._login
        if name != "sftp" or taken or login is None or len(served) >= self._most_channels(login):
            return False
        try:
            self._lease = self._lease or self._services.accounts.acquire(login.url)
            if login.root.strip("/"):
                self._lease.require_directory(login.root, create=login.create_root)
        except AccountRefusedError as error:
            self._turn_away(login.refusal, error)
            return False
        except RootMissingError as error:
            self._turn_away("the folder of this user is missing", error)
            return False
        except AccountUnreachableError as error:
            self._turn_away(f"{login.storage} cannot be reached", error)
            return False
        view = self._lease.tree.view(
            login.root,
            rights=Rights(login.rights),
            write_back=login.write_back,
            quota=login.quota,
            user=login.name,
        )
        sftp = SFTPChannel(
            channel,
            view,
            events=self.log,
            workers=self._services.workers,
            room=self._services.room,
            meter=self._services.meter,
            count_handles=lambda: sum(known.open_handles for known in self.channels),
        )
        with self._lock:
            self._channels = [*served, sftp]
        sftp.start()
        return True

    # The end.

    def ended(self) -> None:
        """Release everything; called once, in the transport's thread, when the connection is over."""
        for channel in self.channels:
            channel.stop()
        until = time.monotonic() + _ABORT_SECONDS
        for channel in self.channels:
            channel.wait(max(0.0, until - time.monotonic()))
        if self._lease is not None:
            self._lease.release()
        if self.signed_in_at is not None and self._login is not None:
            self._services.gatekeeper.sign_out(self._login.name)
            self.log.log("logout", seconds=round(time.monotonic() - self.signed_in_at, 1))
        elif not self._explained and self._refused_keys:
            reason = f"no accepted key: {', '.join(self._refused_keys[:5])}"
            user = shown_name(self._attempted)
            self.log.log("login_failed", level=logging.WARNING, user=user, method="publickey", reason=reason)
        elif not self._explained:
            reason = self.transport.last_problem or "the client left before signing in"
            if NOTHING_IN_COMMON in reason:  # not a port scan but a real client that needs other algorithms
                self.log.log("no_login", client=self.client, reason=reason)
            else:
                level = logging.WARNING if UNTRUSTED_PROXY in reason else logging.DEBUG
                self.log.log("no_login", level=level, reason=reason)
