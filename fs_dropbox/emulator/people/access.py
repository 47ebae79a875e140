"""What accounts may not call although token and scope are right: the 403 answers, as the control declares them."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import AccessError, union

QUOTA_TEXT = "Your team has reached its limit of API calls that transport data. Ask your admin to raise it."
UPLOADS = ("files/upload", "files/paper/", "files/save_url")
PAPER = ("paper/", "files/paper/")
# Names for what is refused in practice: the routes, the auth.AccessError and the text for the user.
DENIALS: dict[str, tuple[tuple[str, ...], dict[str, Any], str | None]] = {
    "paper_disabled": (PAPER, union("paper_access_denied", paper_access_denied=union("paper_disabled")), None),
    "not_paper_user": (PAPER, union("paper_access_denied", paper_access_denied=union("not_paper_user")), None),
    "data_transport": (UPLOADS, union("invalid_account_type", invalid_account_type=union("feature")), QUOTA_TEXT),
    "sharing_endpoint": (("sharing/",), union("invalid_account_type", invalid_account_type=union("endpoint")), None),
    "team_access": (("team/",), union("team_access_denied"), None),
}


def check_access(route: str, account: Account | None, denials: list[str]) -> None:
    """Raise AccessError when one of the denials declared for the account (or its team) is about this route."""
    for name in [*(account.extra.get("denials", []) if account is not None else []), *denials]:
        routes, error, text = DENIALS[name]
        if route.startswith(routes):
            raise AccessError(error, text)
