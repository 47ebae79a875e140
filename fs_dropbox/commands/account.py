"""Commands around the account: login, check, connections."""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Final

import click
from fs.opener.parse import parse_fs_url

from fs_dropbox import opener
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Account, Client
from fs_dropbox.api.retry import OPEN_SECONDS, opening_policy
from fs_dropbox.commands.locations import Session, connected, split_url
from fs_dropbox.commands.output import as_json, human_size, print_json, table
from fs_dropbox.errors import DropboxError, TransportError, opening
from fs_dropbox.login import login as logins
from fs_dropbox.login import probing
from fs_dropbox.login.connections import Connection, Connections, ConnectionsError, check_name
from fs_dropbox.login.login import Grant, Login, LoginError
from fs_dropbox.login.redirect import DEFAULT_PORT, Redirect

KEY_VARIABLE: Final = "DROPBOX_APP_KEY"
SECRET_VARIABLE: Final = "DROPBOX_APP_SECRET"
TOKEN_VARIABLE: Final = "DROPBOX_REFRESH_TOKEN"
BROWSER_SECONDS: Final = 600.0
_ATTEMPTS: Final = 3


def _refusing(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return what refuses a value as the check does, before anything is asked of anybody."""

    def refuse(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            try:
                check(value)
            except ValueError as error:
                raise click.BadParameter(f"must be {error}, not {value!r}") from None
            except ConnectionsError as error:
                raise click.BadParameter(str(error)) from None
        return value

    return refuse


_is_name = _refusing(check_name)
_is_member = _refusing(opener.PARAMETERS["admin"])
_is_root = _refusing(opener.PARAMETERS["root"])


@click.command()
@click.option("--app-key", metavar="KEY", envvar=KEY_VARIABLE, show_envvar=True, help="Your app's key; else asked for.")
@click.option(
    "--name", metavar="NAME", callback=_is_name, help='Name of the connection; by default "Dropbox (Account Name)".'
)
@click.option("--no-browser", is_flag=True, help="Print the address to open anywhere, and ask for the code it shows.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port on 127.0.0.1 to which the browser comes back.",
)
@click.option("--token", is_flag=True, help="You have a refresh token: ask for it instead of for consent.")
@click.option("--read-only", is_flag=True, help="Ask only for permissions to read.")
@click.option("--member", metavar="EMAIL", callback=_is_member, help="With a team's app: the member to act as.")
@click.option(
    "--root",
    metavar="ROOT",
    default="auto",
    show_default=True,
    callback=_is_root,
    help="auto, home, or a namespace's number.",
)
@click.option("--print", "print_", is_flag=True, help="Print the FS URL and the SFTP login instead of storing them.")
def login(
    app_key: str | None,
    name: str | None,
    no_browser: bool,
    port: int,
    token: bool,
    read_only: bool,
    member: str | None,
    root: str,
    print_: bool,
) -> None:
    """Connect a Dropbox account with your own app.

    \b
    Once, at https://www.dropbox.com/developers/apps :
      1. Create app: scoped access; full Dropbox or app folder.
      2. Permissions: account_info.read, files.metadata.read, files.content.read,
         files.content.write; sharing.read, sharing.write for links. Submit.
      3. Settings, OAuth 2, Redirect URIs: add http://localhost:53682/
         (not needed with --no-browser).

    The app secret is never an option: it is asked for, or taken from DROPBOX_APP_SECRET; without one PKCE is used,
    which needs none. With --token the refresh token is asked for, or taken from DROPBOX_REFRESH_TOKEN.
    What is stored is readable by you alone.
    """
    store = Connections()
    if not print_:
        store.check_writable()  # before anybody consents
    key = _wanted("App key", app_key, logins.key_problem)
    with Login(key, _secret(), scopes=tuple(logins.READ_SCOPES) if read_only else ()) as walk:
        walk.check_app()
        grant = _by_token(walk) if token else _by_code(walk) if no_browser else _by_browser(walk, port)
    credentials = _checked(grant, member, read_only=read_only)
    account, url = logins.verify(credentials, root=root), logins.fs_url(credentials, root=root)
    if print_:
        _print_access(credentials, url)
        return
    connection = Connection(name or _free_name(store, account, url), url, account=account.name, email=account.email)
    store.put(connection)
    click.echo(f"Connected as {account.name} ({account.email}): stored as {connection.name!r}. Try: fs-dropbox ls")


def _print_access(credentials: Credentials, url: str) -> None:
    click.echo("fs-dropbox: what follows gives access to the account: keep it secret", err=True)
    user, password = logins.sftp_user(credentials), credentials.refresh_token or ""
    table([("FS URL:", url), ("SFTP user:", user), ("SFTP password:", password)])


def _wanted(
    prompt: str,
    given: str | None,
    problem: Callable[[str], str | None],
    *,
    hidden: bool = False,
    default: str | None = None,
) -> str:
    """Return what was given, or what a person types, once nothing is wrong with it."""
    for _ in range(_ATTEMPTS):
        text = (given if given is not None else _ask(prompt, hidden=hidden, default=default)).strip()
        complaint = problem(text)
        if complaint is None:
            return text
        if given is not None or not sys.stdin.isatty():
            break
        click.echo(f"fs-dropbox: {complaint}", err=True)
    raise LoginError(complaint)


def _ask(prompt: str, *, hidden: bool = False, default: str | None = None) -> str:
    if not sys.stdin.isatty():
        # A script's answers: one line each.
        line = sys.stdin.readline()
        if not line and default is None:
            raise click.UsageError(f"{prompt.lower()} is needed, and standard input has none")
        return line.strip() or (default or "")
    answer: str = click.prompt(prompt, hide_input=hidden, default=default, show_default=False, err=True)
    return answer


def _secret() -> str | None:
    """Return the app secret from the environment or a person; None for PKCE."""
    given = os.environ.get(SECRET_VARIABLE)
    if given is None and not sys.stdin.isatty():
        return None

    def problem(text: str) -> str | None:
        return logins.key_problem(text, "app secret") if text else None

    return _wanted("App secret (Enter for none: PKCE)", given, problem, hidden=True, default="") or None


def _by_token(walk: Login) -> Grant:
    given = os.environ.get(TOKEN_VARIABLE)
    return walk.adopt(_wanted("Refresh token", given, lambda text: logins.token_problem(text, walk), hidden=True))


def _by_browser(walk: Login, port: int) -> Grant:
    with Redirect(walk.state, port) as redirect:
        url = walk.consent_url(redirect.uri)
        click.echo("Opening your browser. Should it not open, or open elsewhere, visit:", err=True)
        click.echo(f"\n  {url}\n", err=True)
        click.echo(
            f"(If Dropbox complains about the redirect_uri: add {redirect.uri} to the app's Redirect URIs in its "
            f"Settings at {logins.CONSOLE_URL}, or use --no-browser.)",
            err=True,
        )
        webbrowser.open(url)
        code = redirect.wait(BROWSER_SECONDS)
        return walk.exchange(code, redirect.uri)


def _by_code(walk: Login) -> Grant:
    click.echo("Open this address in any browser, allow access, and copy the code that it shows:", err=True)
    click.echo(f"\n  {walk.consent_url()}\n", err=True)
    code = _wanted("Code", None, lambda text: logins.code_problem(logins.code_in(text, walk), walk))
    return walk.exchange(logins.code_in(code, walk))


def _checked(grant: Grant, member: str | None, *, read_only: bool) -> Credentials:
    """Return the credentials when the permissions suffice."""
    if grant.is_team and not member:
        raise LoginError("this is a team's app: name the member to act as with --member EMAIL")
    needed = dict(logins.READ_SCOPES if read_only else logins.NEEDED_SCOPES)
    if grant.is_team:
        needed |= logins.TEAM_SCOPES
    if grant.scopes:
        problem = logins.missing_scopes(needed, grant.scopes)
        if problem:
            raise LoginError(problem)
        absent = [scope for scope in logins.OPTIONAL_SCOPES if scope not in grant.scopes]
        if absent and not read_only:
            click.echo(f"fs-dropbox: without {' and '.join(absent)}, link can make no shared links", err=True)
    return replace(grant.credentials, member=member) if member else grant.credentials


def _free_name(store: Connections, account: Account, url: str) -> str:
    """Return the name for a new connection: one that is free, or that the same app has for the same account."""
    holder = "".join("-" if c in ":/" else c for c in account.name if c.isprintable()).strip() or account.email
    known = {connection.name: connection for connection in store.all()}
    candidates = [f"Dropbox ({holder})", f"Dropbox ({holder}, {account.email})"]
    candidates += [f"Dropbox ({holder}, {account.email}) {number}" for number in range(2, len(known) + 3)]
    key = _app_key(url)
    return next(
        name
        for name in candidates
        if name not in known or (known[name].email, _app_key(known[name].url)) == (account.email, key)
    )


def _app_key(url: str) -> str:
    return url.partition("://")[2].partition("~")[0]


@click.command()
@click.argument("location", default="")
@as_json
@connected()
def check(session: Session, location: str, json_: bool) -> int:
    """Tell whether a connection works.

    Shows whose account it is, its space, missing permissions, and how fast Dropbox answers; then whether there is
    something at LOCATION.
    """
    located = session.locate(location)
    arguments = opener.arguments(parse_fs_url(_credentials_url(located.url)))
    options = {name: arguments.get(name) for name in ("api_host", "ca_certs")}
    credentials = Credentials(**{field.name: arguments.get(field.name) for field in fields(Credentials)})
    client = Client(
        credentials,
        root=str(arguments.get("root", "auto")),
        timeout_seconds=float(arguments.get("timeout_seconds", logins.TIMEOUT_SECONDS)),
        policy=opening_policy(float(arguments.get("open_seconds", OPEN_SECONDS))),
        **options,
    )
    try:
        with opening():
            result = _examine(client)
    finally:
        client.close()
    if json_:
        print_json(result)
    else:
        _tell(result)
    if located.path != "/" and result["works"]:
        place = session.place(location)
        place.filesystem.getinfo(place.path)
    return 0 if result["works"] else 3


def _credentials_url(url: str) -> str:
    if not url.startswith("dropbox://"):
        raise click.UsageError("check is for Dropbox only")
    return split_url(url).url


def _examine(client: Client) -> dict[str, Any]:
    granted = probing.permissions(client)
    missing, unknown = ([scope for scope in granted if granted[scope] is answer] for answer in (False, None))
    works = not any(scope in logins.NEEDED_SCOPES for scope in missing)
    result: dict[str, Any] = {"missing_scopes": missing, "unknown_scopes": unknown, "works": works}
    if "account_info.read" not in missing:
        account = client.account()
        result |= {"account": account.name, "email": account.email, "account_id": account.account_id}
        result |= {"root_namespace": account.root_namespace_id, "home_namespace": account.home_namespace_id}
        result["team"] = account.is_team
        try:
            space = client.space_usage()
        except DropboxError as error:  # not told to team admins, nor to some plans, nor by all stand-ins
            if isinstance(error, TransportError) and not error.is_not_taken:
                raise
        else:
            result |= {"used": space.used, "allocated": space.allocated}
    begun = time.monotonic()
    if "files.metadata.read" not in missing:
        client.list_folder("", limit=1)
        result["latency_ms"] = round(1000 * (time.monotonic() - begun))
    return result


def _tell(result: dict[str, Any]) -> None:
    rows, missing, unknown = [], result["missing_scopes"], result["unknown_scopes"]
    if "account" in result:
        rows.append(("account", f"{result['account']} ({result['email']})"))
        root, home = result["root_namespace"], result["home_namespace"]
        if root:  # stand-ins may not tell
            rows.append(("root", f"the team's space (namespace {root})" if root != home else f"namespace {root}"))
    if "used" in result:
        rows.append(("space", f"{human_size(result['used'])} of {human_size(result['allocated'])} used"))
    if "latency_ms" in result:
        rows.append(("latency", f"{result['latency_ms']} ms for a listing"))
    complete = "none missing" if unknown else "all there"
    rows.append(("permissions", f"without {', '.join(missing)}" if missing else complete))
    if unknown:
        rows.append(("not checked", f"{', '.join(unknown)}: what answers has no such calls (is it Dropbox?)"))
    table(rows)
    everything = logins.NEEDED_SCOPES | logins.OPTIONAL_SCOPES
    needed = {scope: purpose for scope, purpose in everything.items() if scope in missing}
    if needed:
        click.echo(f"fs-dropbox: {logins.missing_scopes(needed, ())}", err=True)
    if result["works"]:
        click.echo("connection works")


@click.group()
def connections() -> None:
    """List, choose, rename and forget stored connections."""


@connections.command("list")
@as_json
def list_(json_: bool) -> None:
    """List the connections; the default one is marked."""
    store = Connections()
    default = store.default()
    known = store.all()
    if json_:
        rows = [{"name": c.name, "account": c.account, "email": c.email, "default": c == default} for c in known]
        print_json(rows)
        return
    if not known:
        click.echo("fs-dropbox: there is no connection yet: run fs-dropbox login", err=True)
    table([("*" if c == default else " ", c.name, c.email or "-") for c in known])


@connections.command()
@click.argument("name")
def use(name: str) -> None:
    """Make a connection the default."""
    click.echo(f"the default is {Connections().choose(name).name!r}")


@connections.command()
@click.argument("name")
@click.argument("new_name")
def rename(name: str, new_name: str) -> None:
    """Rename a connection."""
    Connections().rename(name, new_name)


@connections.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a connection. Dropbox goes on trusting the app: disconnect it at dropbox.com/account/connected_apps."""
    Connections().remove(name)


COMMANDS = (login, check, connections)
