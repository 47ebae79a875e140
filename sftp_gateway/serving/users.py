"""Who may log in: the gateway's own users, and storage credentials as user name and password. Knows no SFTP."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import hmac
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from fs.opener import registry
from fs.opener.errors import OpenerError, ParseError, UnsupportedProtocol
from fs.opener.parse import parse_fs_url

from sftp_gateway.config import GatewayConfig, UserConfig, read_text, scheme_of, why_unreadable
from sftp_gateway.network.addresses import is_in, networks_of
from sftp_gateway.passwords import hash_password, is_hash, matches, unmatched

_KEY_KINDS: Final = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
ELSEWHERE: Final = "this user may not sign in from this address"
_NEEDLESS_OPTIONS: Final = {"restrict", "no-pty", "no-port-forwarding", "no-agent-forwarding", "no-x11-forwarding"}
"""Options in authorized_keys that forbid what no session here has anyway."""
_LEAST_STRUCK_OUT: Final = 4  # characters
_CREDENTIALS = re.compile(r"[^~@:/\s]+~[^~\s]*(?:~[^~\s]+)?")
_E_MAIL = re.compile(r"[^@~:/\s]+@[^@~:/\s]+")
# User names entered by mistake: an app's key and secret with a wrong separator, or a token.
_KEY_AND_SECRET = re.compile(r"([a-z0-9]{15}[^a-z0-9~@])\W*[a-z0-9]{15}\b.*", re.DOTALL)
_TOKEN = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[\w.-]{40,}")

_opener = functools.cache(registry.get_opener)  # `get_opener` searches all installed packages each time


class UserError(Exception):
    """A configured user cannot be served as configured; the text is one line without secrets."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user who may sign in, and what they then see. Neither repr nor `shown` contains a secret."""

    name: str = field(repr=False)
    shown: str
    url: str = field(repr=False)
    root: str = "/"
    rights: str = "read-write"
    max_sessions: int = 0
    proven: bool = True
    """False for storage credentials: only opening the URL shows whether they are right."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that no log line may contain."""
    write_back: bool = False
    create_root: bool = False
    quota: tuple[int, int] = (0, 0)
    """The most bytes and files below the root; 0 for no limit."""
    terms: object = field(default=None, repr=False)
    """The settings under which the login was granted; see `Users.still_grants`."""

    @property
    def storage(self) -> str:
        """The name of the storage behind the URL, such as "Dropbox"."""
        return scheme_of(self.url).capitalize() or "The storage"

    @property
    def refusal(self) -> str:
        """Why the storage cannot be opened, for the log and for the user."""
        has_credentials = parse_fs_url(self.url).username is not None
        return f"{self.storage} {'refused the credentials of' if has_credentials else 'cannot be opened for'} this user"


class Users:
    """Checks names, passwords and keys in constant time; users who do not sign in take no resources. Thread-safe."""

    def __init__(self, config: GatewayConfig) -> None:
        self.configure(config)
        self._salt = secrets.token_bytes(32)
        # Each hash takes 19 MiB and a core: more at once would let anybody stall the server.
        self._hashing = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))
        self._lock = threading.Lock()
        # guarded by _lock
        self._verified: dict[str, bytes] = {}

    def configure(self, config: GatewayConfig) -> None:
        """Accept only the users in these settings from now on."""
        self._users = {user.name: user for user in config.users}
        self._config = config
        self.__dict__.pop("_dummy_hash", None)

    def check_password(self, name: str, password: str, address: str = "") -> Login | None:
        """Return the login for this name and password, None if they are refused; raises `UserError`."""
        user = self._users.get(name)
        if user is None and self._config.credential_logins and is_credential_name(name) and password:
            return self._credential_login(name, password)
        stored = password_hash(user) if user is not None and _comes_from(user, address) else ""
        if not self._matches(name, stored or self._dummy_hash, password) or user is None or not stored:
            return None
        return self._login(user)

    def check_key(self, name: str, blob: bytes, address: str = "") -> Login | None:
        """Return the login for this name and public key (in SSH's wire form), None if refused; raises `UserError`."""
        user = self._users.get(name)
        if user is None or not blob or not _comes_from(user, address):
            return None
        fits = [hmac.compare_digest(blob, known) for known in public_keys(user)]
        return self._login(user) if any(fits) else None

    def still_grants(self, login: Login) -> bool:
        """Return whether the login's user still exists, with the same ways to sign in, the same view and rights."""
        return login.terms == self._terms(self._users.get(login.name))

    def _terms(self, user: UserConfig | None) -> object:
        if user is None:
            config = self._config
            return config.credential_logins, config.credential_url, config.url_parameters
        return msgspec.structs.replace(user, max_sessions=0)  # `max_sessions` does not affect open sessions

    def is_elsewhere(self, name: str, address: str) -> bool:
        """Return whether this is a user who may not sign in from this address."""
        user = self._users.get(name)
        return user is not None and not _comes_from(user, address)

    def why_refused(self, name: str, address: str = "") -> str:
        """Return why `check_password` has refused a login; for logs, never for clients."""
        user = self._users.get(name)
        if user is None:
            return "unknown user"
        if self.is_elsewhere(name, address):
            return ELSEWHERE
        has_password = user.password_hash or user.password_hash_file
        return "wrong password" if has_password else "this user has no password, only public keys"

    def urls(self, *, write_back: bool = False) -> Iterator[tuple[str, str]]:
        """Yield name and FS URL of every user that has a URL; with `write_back`, only of those with write-back."""
        for user in self._users.values():
            if user.write_back or not write_back:
                with contextlib.suppress(UserError):
                    yield user.name, _url(user)

    def check_all(self) -> Iterator[str]:
        """Yield a line for each problem that keeps users from signing in; reads keys, URLs and variables."""
        for user in self._users.values():
            for check in (_check_ways_in, _check_url):
                try:
                    check(user)
                except UserError as error:
                    yield str(error)
        if self._config.credential_logins and (
            problem := _wrong_with(self._credential_login("KEY~SECRET", "TOKEN").url)
        ):
            yield f"{'url_parameters' if self._config.url_parameters else 'credential_url'}: {problem}"

    @functools.cached_property
    def _dummy_hash(self) -> str:
        """A hash that nothing matches, so that an unknown name takes as long as a wrong password of the first user.

        It costs as much as that user's hash: hashes made with other tools may be cheaper or more expensive than ours.
        """
        for user in self._users.values():
            with contextlib.suppress(UserError):
                if is_hash(stored := password_hash(user)):
                    return unmatched(stored)
        return hash_password(secrets.token_hex(16))

    def _matches(self, name: str, stored: str, password: str) -> bool:
        """Verify slowly once, and from then on quickly for the same password and hash."""
        typed = password.encode("utf-8", "surrogateescape")  # not every client encodes it in UTF-8
        digest = hmac.digest(self._salt, f"{len(stored)}:{stored}".encode() + typed, "sha256")
        with self._lock:
            known = self._verified.get(name, b"")
        if hmac.compare_digest(known, digest):
            return True
        with self._hashing:
            if not matches(stored, typed):
                return False
        with self._lock:
            self._verified[name] = digest
        return True

    def _credential_login(self, name: str, password: str) -> Login:
        """Return a login that is proven only by opening its URL."""
        parts = {"user": quote(name, safe=""), "password": quote(password, safe="", errors="surrogateescape")}
        url = re.sub(r"\{(user|password)\}", lambda match: parts[match[1]], self._config.credential_url)
        if self._config.url_parameters:
            url += ("&" if "?" in url else "?") + self._config.url_parameters
        secret = name.split("~")[1] if "~" in name else ""
        # Striking out a letter or two would make the line unreadable, and reveal them.
        hidden = tuple(text for text in (password, parts["password"], secret, url) if len(text) >= _LEAST_STRUCK_OUT)
        return Login(name, shown_name(name), url, proven=False, secrets=hidden, terms=self._terms(None))

    def _login(self, user: UserConfig) -> Login:
        url = _url(user)
        hidden = (url, *(part for part in re.split(r"[/:@~?&=]", url) if len(part) >= 12))
        return Login(
            user.name,
            shown_name(user.name),
            url,
            user.root,
            user.rights,
            user.max_sessions,
            secrets=hidden,
            write_back=user.write_back,
            create_root=user.create_root,
            quota=(user.quota_bytes, user.quota_files),
            terms=self._terms(user),
        )


def password_hash(user: UserConfig) -> str:
    """Return the user's password hash, "" if it has none; raises `UserError`."""
    if not user.password_hash_file:
        return user.password_hash
    stored = _read(user, "password_hash_file").strip()
    if not stored:
        raise UserError(f"user {user.name}: {user.password_hash_file}: holds no hash")
    return stored


def is_credential_name(name: str) -> bool:
    """Return whether a name looks like APP_KEY~APP_SECRET, APP_KEY~, APP_KEY~APP_SECRET~MEMBER or an e-mail address."""
    return bool(_CREDENTIALS.fullmatch(name) or _E_MAIL.fullmatch(name))


def is_mistaken(name: str) -> bool:
    """Return whether a name consists of secrets: an app's key and secret in a wrong form, or a token."""
    return bool(_KEY_AND_SECRET.fullmatch(name) or _TOKEN.fullmatch(name))


def shown_name(name: str) -> str:
    """Return a login name as logs may show it: what follows the first ~ can be an app's secret."""
    if match := _KEY_AND_SECRET.fullmatch(name):
        return f"{match[1]}***"
    if _TOKEN.fullmatch(name):
        return "***"
    key, tilde, rest = name.partition("~")
    if not tilde:
        return name[:64]
    member = rest.partition("~")[2]
    return f"{key[:64]}~***" + (f"~{member[:64]}" if member else "")


def fingerprint(blob: bytes) -> str:
    """Return the fingerprint of a public key as OpenSSH shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_keys(user: UserConfig) -> Iterator[bytes]:
    """Yield the user's public keys in SSH's wire form; raises `UserError` for a line that is not a key."""
    for line in user.public_keys:
        yield from _public_key(line, f"user {user.name}: public_keys")
    if user.public_keys_file:
        for number, line in enumerate(_read(user, "public_keys_file").splitlines(), 1):
            yield from _public_key(line, f"user {user.name}: {user.public_keys_file}, line {number}")


def _comes_from(user: UserConfig, address: str) -> bool:
    return not user.networks or is_in(networks_of(user.networks), address)


def _public_key(line: str, where: str) -> Iterator[bytes]:
    words = line.split()
    if not words or words[0].startswith("#"):
        return
    if set(words[0].lower().split(",")) <= _NEEDLESS_OPTIONS:
        words = words[1:]
    if len(words) < 2 or words[0] not in _KEY_KINDS:
        raise UserError(f"{where}: {_why_no_key(line)}")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        blob = b""
    if not blob.startswith(len(words[0]).to_bytes(4, "big") + words[0].encode()):
        raise UserError(f"{where}: the key is damaged")
    yield blob


def _why_no_key(line: str) -> str:
    if "PRIVATE KEY" in line or line.startswith("PuTTY-User-Key-File"):
        return "this is a private key, which stays with its owner; give the public one"
    if line.startswith("---- BEGIN SSH2"):
        return "this is a key as PuTTYgen saves it; give the line that it shows for OpenSSH, or run ssh-keygen -i"
    if 'from="' in line:
        return "keys have no from= here; give the user's networks instead"
    return f"a line starts with the kind of key (one of {', '.join(_KEY_KINDS)}), without options that allow something"


def _url(user: UserConfig) -> str:
    if user.url:
        return user.url
    if user.url_env:
        url, problem = os.environ.get(user.url_env, ""), f"url_env: the variable {user.url_env} is not set here"
    else:
        url, problem = _read(user, "url_file").strip(), f"url_file: {user.url_file} holds no URL"
    if not url:
        raise UserError(f"user {user.name}: {problem}")
    return url


def _check_ways_in(user: UserConfig) -> None:
    keys = list(public_keys(user))
    stored = password_hash(user)
    if not stored and not keys:
        raise UserError(f"user {user.name}: {user.public_keys_file}: holds no key")
    if stored and not is_hash(stored):
        what = "is damaged, or a bcrypt hash of a cost above 15; make one with: sftp-gateway hash-password"
        raise UserError(f"user {user.name}: password_hash: {what}")


def _check_url(user: UserConfig) -> None:
    problem = _wrong_with(_url(user))
    if problem:
        raise UserError(f"user {user.name}: {problem}")


def _wrong_with(url: str) -> str:
    """Return what is wrong with an FS URL, without showing or opening it; "" if nothing is wrong."""
    try:
        parsed = parse_fs_url(url)
        opener = _opener(parsed.protocol)
        if hasattr(opener, "check_url"):
            opener.check_url(parsed)
    except (ParseError, UnsupportedProtocol) as error:
        if isinstance(error, UnsupportedProtocol) and (scheme := scheme_of(url)):
            return f"no filesystem is installed for {scheme}:// URLs"
        return "the url is no FS URL, such as dropbox://KEY~SECRET:TOKEN@/"
    except OpenerError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a foreign opener's mistake; its text could hold the URL
        return f"the url cannot be read ({type(error).__name__})"
    return ""


def _read(user: UserConfig, key: str) -> str:
    path = getattr(user, key)
    try:
        return read_text(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"user {user.name}: {key}: {path}: {why_unreadable(path, error)}") from error
