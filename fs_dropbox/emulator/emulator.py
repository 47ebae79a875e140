"""The emulator as one object: starts, stops, and tells clients how to reach it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from fs_dropbox.emulator.control.control import Control
from fs_dropbox.emulator.http import Request
from fs_dropbox.emulator.model.accounts import Account, App, Grant
from fs_dropbox.emulator.model.options import Options
from fs_dropbox.emulator.routes import load as load_routes
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web.certificates import make_certificates
from fs_dropbox.emulator.web.dispatch import Dispatcher
from fs_dropbox.emulator.web.server import HTTPServer

TUNNEL_NAMES = ("dropboxapi.com", "dropbox.com", "dropboxusercontent.com", "localhost", "127.0.0.1")
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # nobody can be called by them, and no certificate names them
DEFAULT_EMAIL = "ann@example.com"
LOGIN_REDIRECT = "http://localhost:53682/"
"""Where the default apps may send browsers: there `fs-dropbox login` waits for them, and rclone does."""


class Emulator:
    """A local Dropbox for one process. Use it as a context manager, or start() and stop() it.

    `folder` keeps everything on disk across restarts; without it everything is gone after stop().
    start() returns when the emulator answers and raises OSError when it cannot; stop() ends every thread and socket.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        port: int = 0,
        *,
        address: str = "127.0.0.1",
        options: Options | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options or Options()
        self._folder = Path(folder).absolute() if folder is not None else None  # its CA file is named to others
        self._port = port
        self._address = address
        self._clock = clock
        self._temporary: Path | None = None
        self._server: HTTPServer | None = None
        self._service: Service | None = None
        self._folder_lock: int | None = None

    def start(self) -> Emulator:
        """Listen. Raises OSError when the port is taken or the folder cannot be written."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            place = self._folder
            self._take_folder(place)
        else:
            place = self._temporary = Path(tempfile.mkdtemp(prefix="dropbox-emulator-ca-"))
        self.ca_file, tls = make_certificates(place)
        self._service = service = Service(self._folder, self._clock, self.options)
        self._add_default_account(service)
        self.control = Control(service)
        load_routes()
        self._server = HTTPServer(Dispatcher(service), tls, self._tunnel_status, service.limits.connect)
        service.drop_connections = self._server.drop_connections
        self.port = self._server.start(self._address, self._port)
        address = ANY_ADDRESS.get(self._address, self._address)
        self.host = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self.url, self.http_url = f"https://{self.host}", f"http://{self.host}"
        self.proxy_url = self.http_url  # of a CONNECT proxy that leads Dropbox's own host names to the emulator

    def _tunnel_status(self, request: Request) -> int:
        """Return what the CONNECT proxy answers."""
        login = self.options.proxy_login
        expected = f"Basic {b64encode(login.encode()).decode()}"
        if login and request.headers.get("proxy-authorization") != expected:
            return HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        return HTTPStatus.OK if _accepts_tunnel(request.path.rpartition(":")[0]) else HTTPStatus.FORBIDDEN

    def _take_folder(self, folder: Path) -> None:
        """Keep other emulators off the folder; the system lets go of it even when the process is killed."""
        self._folder_lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._folder_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EBUSY, "another emulator uses this folder", str(folder)) from None

    def stop(self) -> None:
        """End every wait, thread and socket; store the rest."""
        if self._service is not None:
            self._service.stop()
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._service is not None:
            self._service.close()
            self._service = None
        if self._folder_lock is not None:
            os.close(self._folder_lock)
            self._folder_lock = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def service(self) -> Service:
        """The parts, for tests that set up accounts, apps and teams."""
        assert self._service is not None, "the emulator is not running"
        return self._service

    # Accounts ---------------------------------------------------------------

    def _add_default_account(self, service: Service) -> None:
        accounts = service.accounts
        with service.state.mutation():
            account = accounts.by_email(DEFAULT_EMAIL)
            if account is None:
                account = accounts.add_account(DEFAULT_EMAIL, "Ann", "Example")
                accounts.add_grant(accounts.add_app("Emulator App"), account=account)
                accounts.add_grant(accounts.add_app("Emulator PKCE App"), account=account, pkce=True)
        self.account = account
        self.app, self.grant = self._app("Emulator App")
        self.app_key, self.app_secret, self.refresh_token = self.app.key, self.app.secret, str(self.grant.refresh_token)
        app, grant = self._app("Emulator PKCE App")  # whose clients have no secret
        self.pkce_app_key, self.pkce_refresh_token = app.key, str(grant.refresh_token)

    def _app(self, name: str) -> tuple[App, Grant]:
        accounts = self.service.accounts
        app = next(app for app in accounts.apps.values() if app.name == name)
        mine = (g for g in accounts.grants.values() if g.app_key == app.key and not g.revoked and g.refresh_token)
        grant = next((g for g in mine if g.account_id == self.account.account_id), None)
        if grant is None:  # revoked in an earlier run: a demo must still let in
            with self.service.state.mutation():
                grant = accounts.add_grant(app, account=self.account, pkce=name.endswith("PKCE App"))
        if LOGIN_REDIRECT not in app.redirect_uris:
            with self.service.state.mutation():
                app.redirect_uris.append(LOGIN_REDIRECT)
                accounts.store(app)
        return app, grant

    def access_token(self, account: Account | None = None) -> str:
        """Return a fresh access token of an account (the default one) for the default app."""
        accounts = self.service.accounts
        with self.service.state.mutation():
            grant = self.grant if account is None else accounts.add_grant(self.app, account=account)
            return accounts.add_token(grant).token

    # Addresses --------------------------------------------------------------

    @property
    def fs_url(self) -> str:
        """The URL by which PyFilesystem opens the default account."""
        return self.fs_url_for(self.app_key, self.app_secret, self.refresh_token)

    @property
    def plain_fs_url(self) -> str:
        """The same without TLS."""
        return self.fs_url.partition("?")[0] + f"?api_host={quote(self.http_url, safe='')}"

    def fs_url_for(self, app_key: str, app_secret: str, refresh_token: str) -> str:
        """Return the URL by which PyFilesystem opens an account of the emulator."""
        user = quote(f"{app_key}~{app_secret}", safe="~")
        ca_file = quote(str(self.ca_file), safe="")
        return f"dropbox://{user}:{quote(refresh_token, safe='')}@/?api_host={self.host}&ca_certs={ca_file}"

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs in its environment so that its Dropbox SDK finds the emulator."""
        return {
            "DROPBOX_API_HOST": self.host,
            "DROPBOX_API_CONTENT_HOST": self.host,
            "DROPBOX_API_NOTIFY_HOST": self.host,
            "DROPBOX_WEB_HOST": self.host,
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
            "SSL_CERT_FILE": str(self.ca_file),
        }


def _accepts_tunnel(host: str) -> bool:
    return any(host == name or host.endswith("." + name) for name in TUNNEL_NAMES)
