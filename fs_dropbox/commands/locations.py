"""From what people type (`name:/path`, `/path`, an FS URL) to an open filesystem and a path in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import click
import fs
from fs import errors
from fs.base import FS
from fs.opener.errors import ParseError
from fs.osfs import OSFS
from fs.path import abspath, dirname, join, normpath, relpath

from fs_dropbox.conventions import literal
from fs_dropbox.login.connections import Connections
from fs_dropbox.mirroring.transfer import Place, StoppedError
from fs_dropbox.views.places import place_of

# A name, a colon, then a path from the root or nothing.
_NAMED = re.compile(r"(?P<name>[^/:]*):(?P<path>(/.*)?)", re.DOTALL)
_DROPBOX = re.compile(r"(?P<head>dropbox://(?:[^/?@]*@)?)(?P<path>[^?]*)(?P<query>\?.*)?", re.DOTALL)

Command = TypeVar("Command", bound=Callable[..., Any])

URL_FORM: Final = "it should read dropbox://APP_KEY~APP_SECRET:REFRESH_TOKEN@/"
LOCATIONS_HELP: Final = """
\b
A LOCATION is one of
  /folder/file           in the default connection (fs-dropbox connections)
  :/folder/file          the same, where a plain path would mean a local one
  name:/folder/file      in that connection; an unmistakable beginning will do
  /folder/.deleted       what was deleted in a folder
  /folder/.versions/file the versions of a file, as files
  /.shared               folders that others share and that are not mounted
  dropbox://…@/folder    an FS URL; prefer --url-env, as others may see it in
                         the process list
"""


@dataclass(frozen=True, slots=True)
class Location:
    """What was typed, taken apart: an FS URL, and a path in the filesystem that it opens."""

    url: str
    path: str

    def __repr__(self) -> str:
        return f"Location(path={self.path!r})"


class Session:
    """The filesystems that one command has opened. Not thread-safe; close() ends them."""

    def __init__(
        self,
        connection: str | None = None,
        url_env: str | None = None,
        *,
        follow: bool = False,
        views_everywhere: bool = True,
    ) -> None:
        """Set up; nothing is opened yet.

        Args:
            connection: the name of the default connection, instead of the one stored last.
            url_env: the environment variable with the FS URL to use by default.
            follow: keep what is cached right over a long time, by following the changes of the account.
            views_everywhere: False opens views only where a location leads into one: whole trees may hold folders
                that are really called as views are.
        """
        self._connection = connection
        self._url_env = url_env
        self._follow = follow
        self._views_everywhere = views_everywhere
        self._open: dict[tuple[str, bool], FS] = {}

    def place(self, text: str) -> Place:
        """Return the place of a location in a filesystem opened for it."""
        location = self.locate(text)
        views = self._views_everywhere or place_of(location.path) is not None
        return Place(self._filesystem(location.url, views=views), location.path)

    def locate(self, text: str) -> Location:
        """Take a location apart, without opening anything."""
        if "://" in text:
            return split_url(text)
        named = _NAMED.fullmatch(text)
        name, path = (named["name"], named["path"]) if named else ("", text)
        base = split_url(Connections().find(name).url) if name else self._default()
        return Location(base.url, join(base.path, relpath(normpath(abspath(path or "/")))))

    def _default(self) -> Location:
        if self._url_env is not None:
            url = os.environ.get(self._url_env, "")
            if not url:
                raise click.UsageError(f"the environment variable {self._url_env} is not set")
            if "://" not in url:
                raise click.UsageError(f"the environment variable {self._url_env} holds no FS URL: {URL_FORM}")
            return split_url(url)
        store = Connections()
        if self._connection is not None:
            return split_url(store.find(self._connection).url)
        default = store.default()
        if default is not None:
            return split_url(default.url)
        if store.all():
            names = ", ".join(repr(connection.name) for connection in store.all())
            raise click.UsageError(f"which connection? Name one of {names}, or run: fs-dropbox connections use NAME")
        raise click.UsageError("there is no connection yet: run fs-dropbox login, or give an FS URL with --url-env")

    def _filesystem(self, url: str, *, views: bool) -> FS:
        if (url, views) not in self._open:
            self._open[url, views] = open_url(url, follow=self._follow, views=views)
        return self._open[url, views]

    def close(self) -> None:
        """Close what was opened."""
        while self._open:
            self._open.popitem()[1].close()


def split_url(url: str) -> Location:
    """Return an FS URL without the path that it has, and that path; only Dropbox's own URLs may name a file."""
    match = _DROPBOX.fullmatch(url)
    if match is None:
        head, bang, path = url.rpartition("!") if "!" in url else (url, "", "")
        return Location(head, abspath(normpath(path)) if bang else "/")
    path, _, inner = match["path"].partition("!")
    try:
        whole = join(abspath(normpath(unquote(path))), relpath(normpath(unquote(inner))))
    except errors.IllegalBackReference:
        raise click.UsageError("the path of the FS URL leads above the root") from None
    return Location(f"{match['head']}/{match['query'] or ''}", whole)


def open_url(url: str, *, follow: bool, views: bool) -> FS:
    """Open an FS URL; errors show no part of it that could be secret."""
    if url.startswith("dropbox://"):
        # One command is over before foreign changes matter: no thread, no calls for them.
        defaults = {"views": "on"} if views else {}
        defaults |= {} if follow else {"change_feed": "off"}
        for name, value in defaults.items():
            if f"{name}=" not in url:
                url += f"{'&' if '?' in url else '?'}{name}={value}"
    try:
        return fs.open_fs(url)
    except ParseError:
        raise click.UsageError(
            f"the FS URL is malformed: {URL_FORM}, other characters than letters, digits and -._~ percent-encoded"
        ) from None


def is_remote(text: str) -> bool:
    """Tell whether a location that may also be local names a connection or an FS URL."""
    return "://" in text or _NAMED.fullmatch(text) is not None


def local_place(text: str) -> Place:
    """Return the place of a path of this machine; the filesystem starts at the root."""
    return Place(OSFS("/"), os.path.abspath(os.path.expanduser(text)))


@contextmanager
def needing_a_folder_for(target: Place, remedy: str = "") -> Iterator[None]:
    """Where something cannot be made, say of the folder above it that it is missing, and not of what is to be made."""
    try:
        yield
    except errors.ResourceNotFound as error:
        if error.path != target.path:
            raise
        above = literal(f"there is no folder {dirname(target.path)}{remedy}")
        raise errors.ResourceNotFound(target.path, msg=above) from error


def ability(place: Place, name: str) -> Any:
    """Return a method that only some filesystems have."""
    method = getattr(place.filesystem, name, None)
    if method is None:
        raise errors.Unsupported(msg=literal(f"this is for Dropbox only: {place.filesystem} has no {name}"))
    return method


def connected(
    *, follow: bool = False, views_everywhere: bool = True, changes: bool = False
) -> Callable[[Command], Command]:
    """Give a command the options that choose the default connection, and a `session` as its first argument.

    Where it `changes` something, whoever interrupts it is told what may have become of that.
    """

    def decorate(command: Command) -> Command:
        @click.option("-c", "--connection", metavar="NAME", help="The connection for paths that name none.")
        @click.option("--url-env", metavar="VARIABLE", help="Take the FS URL for such paths from this variable.")
        @wraps(command)
        def wrapper(*args: Any, connection: str | None, url_env: str | None, **options: Any) -> Any:
            session = Session(connection, url_env, follow=follow, views_everywhere=views_everywhere)
            try:
                return command(session, *args, **options)
            except (KeyboardInterrupt, StoppedError) as error:
                if changes:
                    error.add_note("a change that was under way may have been made")
                raise
            finally:
                session.close()

        return wrapper  # type: ignore[return-value]

    return decorate
