"""`DropboxOpener`: FS URLs to constructor arguments. Knows no network, and no defaults of its own.

    dropbox://APP_KEY~APP_SECRET:REFRESH_TOKEN@/folder?root=auto
    dropbox://APP_KEY~:REFRESH_TOKEN@/                      an app without a secret (PKCE)
    dropbox://APP_KEY~APP_SECRET~ann@example.com:…@/        as that member of the team
    dropbox://APP_KEY~APP_SECRET:…@/?admin=boss%40example.com  as the team's administrator
    dropbox://ann%40example.com:ACCESS_TOKEN@/              an access token, which must belong to that address

Every part is percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fs.opener import Opener
from fs.opener.errors import OpenerError

from fs_dropbox.api.pool import tls_context
from fs_dropbox.api.routes import STAND_IN
from fs_dropbox.dropboxfs import DropboxFS
from fs_dropbox.errors import TransportError
from fs_dropbox.filesystem.subfolder import ClosingDropboxSubFS
from fs_dropbox.views.documents import SHOWS

if TYPE_CHECKING:
    from fs.base import FS
    from fs.opener.parse import ParseResult

FORM: Final = "dropbox://APP_KEY~APP_SECRET:REFRESH_TOKEN@/folder"
_SWITCH: Final = {
    "on": True,
    "true": True,
    "yes": True,
    "1": True,
    "off": False,
    "false": False,
    "no": False,
    "0": False,
}
_KEY = re.compile(r"[A-Za-z0-9]+")
_MEMBER_ID = re.compile(r"dbmid:[\w-]+")
_ADDRESS = re.compile(r"[^@~\s]+@[^@~\s]+")


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError("on or off")
    return _SWITCH[text.lower()]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("a number of seconds") from None
    if not 0 < seconds < float("inf"):
        raise ValueError("a number of seconds above 0")
    return seconds


def _host(text: str) -> str:
    if not re.fullmatch(STAND_IN, text):
        raise ValueError("a host, host:port, or http://host:port for a stand-in without TLS")
    return text


def _root(text: str) -> str:
    if text not in ("auto", "home") and not text.isdecimal():
        raise ValueError("auto, home, or the number of a namespace")
    return text


def _member(text: str) -> str:
    if not (_ADDRESS.fullmatch(text) or _MEMBER_ID.fullmatch(text)):
        raise ValueError("an e-mail address, or the id of a team member (dbmid:…)")
    return text


def _show(text: str) -> str:
    if text not in SHOWS:
        raise ValueError(f"one of {', '.join(SHOWS)}")
    return text


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(each.strip().lower() for each in text.split(","))
    if not all(re.fullmatch(r"[a-z0-9_]+", each) for each in formats):
        raise ValueError("formats with commas between them, such as html,docx")
    return formats


PARAMETERS: Final[Mapping[str, Callable[[str], object]]] = {
    "root": _root,
    "cache": _switch,
    "cache_ttl_seconds": _seconds,
    "change_feed": _switch,
    "api_host": _host,
    "ca_certs": str,
    "timeout_seconds": _seconds,
    "open_seconds": _seconds,
    "admin": _member,
    "documents": _show,
    "export": _formats,
    "views": _switch,
}


class DropboxOpener(Opener):
    """Opens `dropbox://` URLs. Its errors name the part that is wrong, never what it holds: URLs hold secrets."""

    protocols = ["dropbox"]

    def check_url(self, parse_result: ParseResult) -> None:
        """Raise OpenerError for what is wrong with a URL, and with the file that it names, without opening anything."""
        ca_certs = arguments(parse_result).get("ca_certs")
        if ca_certs:
            try:
                tls_context(ca_certs)
            except TransportError as error:
                raise OpenerError(f"the parameter ca_certs of the Dropbox URL: {error.detail}") from None

    def open_fs(self, fs_url: str, parse_result: ParseResult, writeable: bool, create: bool, cwd: str) -> FS:
        return opened(parse_result, create=create)


def opened(parsed: ParseResult, *, create: bool = False, **others: Any) -> FS:
    """Open what a URL names; `others` are arguments of DropboxFS that come before the URL's own."""
    dropbox_fs = DropboxFS(**(arguments(parsed) | others))
    folder = folder_of(parsed)
    if not folder:
        return dropbox_fs
    try:
        if create:
            dropbox_fs.makedirs(folder, recreate=True)
        return dropbox_fs.opendir(folder, factory=ClosingDropboxSubFS)  # closes the account with it
    except BaseException:
        dropbox_fs.close()
        raise


def folder_of(parsed: ParseResult) -> str:
    """Return the folder that a URL names, "" for the root."""
    return str(parsed.resource.partition("/")[2].strip("/"))


def arguments(parsed: ParseResult) -> dict[str, Any]:
    """Return the arguments of DropboxFS that a URL holds; raises OpenerError that names what is wrong."""
    if parsed.resource.partition("/")[0]:
        raise OpenerError(
            f"a Dropbox URL names no host; it is {FORM}, with @/ before the folder"
            " (and %2F for a slash, %40 for an @ in the credentials)"
        )
    if parsed.path:
        raise OpenerError(f"a Dropbox URL has no part after !; it is {FORM}")
    result = _credentials(parsed.username or "", parsed.password or "")
    for name, text in parsed.params.items():
        if name not in PARAMETERS:
            raise OpenerError(f"unknown parameter {name!r} in the Dropbox URL; there are {', '.join(PARAMETERS)}")
        try:
            result[name] = PARAMETERS[name](text)
        except ValueError as error:
            raise OpenerError(f"the parameter {name} of the Dropbox URL must be {error}, not {text!r}") from None
    return result


def _credentials(user: str, password: str) -> dict[str, Any]:
    if not user:
        raise OpenerError(f"the Dropbox URL has no credentials; it is {FORM}; make one with: fs-dropbox login --print")
    if "~" not in user:
        if not _ADDRESS.fullmatch(user):
            raise OpenerError(
                "the user of the Dropbox URL must be APP_KEY~APP_SECRET, APP_KEY~ for an app without a secret,"
                " or an e-mail address (with %40 for its @) with an access token as the password"
            )
        if not password:
            raise OpenerError("the Dropbox URL has no access token; it is dropbox://ADDRESS:ACCESS_TOKEN@/")
        return {"email": user, "access_token": password}
    key, _, rest = user.partition("~")
    secret, _, member = rest.partition("~")
    if "~" in member:
        raise OpenerError("the user of the Dropbox URL has too many ~; it is APP_KEY~APP_SECRET~member@company.com")
    if not _KEY.fullmatch(key):
        raise OpenerError("the app key in the Dropbox URL must be letters and digits, as the App Console shows it")
    if secret and not _KEY.fullmatch(secret):
        raise OpenerError("the app secret in the Dropbox URL must be letters and digits, as the App Console shows it")
    if member and not (_ADDRESS.fullmatch(member) or _MEMBER_ID.fullmatch(member)):
        raise OpenerError(
            "the member in the Dropbox URL must be an e-mail address (with %40 for its @) or an id (dbmid:…), "
            f"not {member!r}"
        )
    if not password:
        raise OpenerError(f"the Dropbox URL has no refresh token; it is {FORM}; make one: fs-dropbox login --print")
    return {"app_key": key, "app_secret": secret or None, "member": member or None, "refresh_token": password}
