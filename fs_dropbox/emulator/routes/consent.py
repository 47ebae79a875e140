"""The page on which a user lets an app in: a form for people, an automatic answer for scripts."""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode, urlsplit, urlunsplit

from fs_dropbox.emulator.http import Request, Response
from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.people.consent import RefusedConsentError, Wish, is_approved, issue_code, read_wish
from fs_dropbox.emulator.routes.oauth import read_form
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web import registry

DENIED = "The user chose not to give your app access to their Dropbox account."
STYLE = "body{font-family:sans-serif;max-width:32em;margin:4em auto}button{padding:.5em 2em}input{width:100%}"


@registry.page("GET", "/oauth2/authorize")
def show(service: Service, request: Request) -> Response:
    """Ask the user; or answer at once when it was allowed before, when the option `consent` says so, or when the URL
    has the parameter `approve=1` or `deny=1` (with `account=<e-mail>` for another account than the first)."""
    told = [answer for answer in ("deny", "approve") if request.query.get(answer) == "1"]
    return _answer(service, request.query, *told[:1] or [service.options.consent])


@registry.page("POST", "/oauth2/authorize")
def decide(service: Service, request: Request) -> Response:
    """Take the user's decision: the fields of the form, `decision` is allow or deny."""
    try:
        parameters = read_form(request)
    except ValueError:
        return _page(400, "Error (400)", "<p>Cannot read the form.</p>")
    return _answer(service, parameters, "approve" if parameters.get("decision") == "allow" else "deny")


def _answer(service: Service, parameters: dict[str, str], answer: str) -> Response:
    with service.state.mutation():
        try:
            wish = read_wish(service, parameters)
            account = _account(service, parameters.get("account"))
            if answer == "ask" and wish.redirect_uri is not None and is_approved(service, wish, account):
                answer = "approve"
            if answer == "ask":
                return _page(200, "Connect an app", _form(service, wish, parameters))
            return _decide(service, wish, parameters, account, allowed=answer == "approve")
        except RefusedConsentError as refusal:
            return _page(400, "Error (400)", f"<p>{escape(str(refusal))}</p>")


def _account(service: Service, email: str | None) -> Account:
    accounts = service.accounts
    account = accounts.by_email(email) if email else next(iter(accounts.accounts.values()))
    if account is None:
        raise RefusedConsentError(f'Nobody has the e-mail address "{email}".')
    return account


def _decide(service: Service, wish: Wish, parameters: dict[str, str], account: Account, *, allowed: bool) -> Response:
    if not allowed:
        answer = {"error": "access_denied", "error_description": DENIED}
        if wish.redirect_uri is None:
            return _page(200, "Access denied", f"<p>{DENIED}</p>")
        return _redirect(wish, answer)
    code = issue_code(service, wish, account, parameters.get("include_granted_scopes", ""))
    if wish.redirect_uri is not None:
        return _redirect(wish, {"code": code})
    text = "Enter this code into the app to finish the process."
    return _page(200, "Access code generated", f'<p>{text}</p><input id="code" readonly value="{escape(code)}">')


def _redirect(wish: Wish, answer: dict[str, str]) -> Response:
    assert wish.redirect_uri is not None
    if wish.state is not None:
        answer["state"] = wish.state
    parts = urlsplit(wish.redirect_uri)
    query = f"{parts.query}&{urlencode(answer)}" if parts.query else urlencode(answer)
    return Response(302, {"Location": urlunsplit(parts._replace(query=query)), "Cache-Control": "no-cache"})


def _form(service: Service, wish: Wish, parameters: dict[str, str]) -> str:
    app = service.accounts.apps[wish.app_key]
    kept = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in parameters.items()
        if name != "account"
    )
    choices = "".join(
        f'<option value="{escape(account.email)}"{" selected" * (account.email == parameters.get("account"))}>'
        f"{escape(account.display_name)} ({escape(account.email)})</option>"
        for account in service.accounts.accounts.values()
    )
    scopes = "".join(f"<li>{escape(scope)}</li>" for scope in wish.scopes)
    return (
        f"<p><b>{escape(app.name)}</b> would like access to the Dropbox of</p>"
        f'<form method="post" action="/oauth2/authorize">{kept}<p><select name="account">{choices}</select></p>'
        f"<p>It may use:</p><ul>{scopes}</ul>"
        '<button name="decision" value="deny">Cancel</button> <button name="decision" value="allow">Allow</button>'
        "</form>"
    )


def _page(status: int, title: str, body: str) -> Response:
    text = (
        f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{title}</title><style>{STYLE}</style></head>"
        f"<body><h1>{title}</h1>{body}</body></html>\n"
    )
    return Response(status, {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}, text.encode())
