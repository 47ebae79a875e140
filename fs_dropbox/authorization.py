"""What is said where somebody is not authorised: who, to do what, and which permission is missing. Knows no errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# What Dropbox says where the app itself was never given the scope.
_REQUIRED: Final = re.compile(r"required scope '([^']+)'")
_SELECT_NEEDED: Final = "Dropbox-API-Select-User"
_NOT_FOR_THIS_APP: Final = "not allowed to call this function"

# What the scopes let do that the product uses.
_ACTIONS: Final[Mapping[str, str]] = {
    "account_info.read": "see whose account it is",
    "files.metadata.read": "list files and folders",
    "files.content.read": "read files",
    "files.content.write": "write files",
    "sharing.read": "see shared folders and links",
    "sharing.write": "make shared links",
    "members.read": "look up members of the team",
    "team_data.member": "act for members of the team",
    "team_data.team_space": "see the team's space",
    "team_data.content.read": "read what belongs to the team",
    "team_data.content.write": "write what belongs to the team",
}
_REMEDY: Final = "add it in the App Console (Permissions) unless it is there, then run `fs-dropbox login` again"


def required_scope(tag: tuple[str, ...], message: str, details: Mapping[str, object]) -> str | None:
    """Return the scope whose absence is the reason of a refusal, None when it is another reason."""
    if tag[:1] == ("missing_scope",):
        return str(details.get("required_scope", ""))
    match = _REQUIRED.search(message)
    return match[1] if match else None


def refusal(tag: tuple[str, ...], message: str, details: Mapping[str, object], actor: str) -> str | None:
    """Say why somebody (`actor`, an e-mail address or "") was refused; None where it was for something else."""
    scope = required_scope(tag, message, details)
    if scope is not None:
        action = _ACTIONS.get(scope, "do that")
        return f"{_subject(actor)}not authorized to {action}: the app lacks the scope {scope}; {_REMEDY}"
    if tag[:1] != ("bad_request",):
        return None
    if _SELECT_NEEDED in message:
        member = "APP_KEY~APP_SECRET~member@company.com, or an administrator with admin=boss@company.com"
        return f"the app is a team's: name the member to act as, {member}"
    if _NOT_FOR_THIS_APP in message:
        return (
            f"{_subject(actor)}not authorized to do that with this app: one with an app folder may not, nor a person's"
        )
    return None


def named(text: str, actor: str, status: int, root: str) -> str:
    """Return a reason for a lack of permission with the name of whoever lacks it."""
    if status == 422:
        place = f"the namespace {root}" if root.isdigit() else f"the root of the account ({root})"
        return f"{_subject(actor)}not authorized to enter {place}: it does not exist or is not shared"
    if not actor:
        return text
    if text.startswith("no permission to "):
        return f"{actor} is not authorized to {text.removeprefix('no permission to ')}"
    if "that team " in text:
        return re.sub(r"that team \w+", actor, text)
    return f"{actor} is not authorized: {text}" if status == 403 else text


def _subject(actor: str) -> str:
    return f"{actor} is " if actor else ""
