"""Other people and apps than the default ones, as raw clients."""

from __future__ import annotations

import json
from typing import Any

import dropbox
import requests

from fs_dropbox.emulator import Emulator

from .raw_api import Api

# People besides Ann, whom the emulator begins with.
BOB = "bob@example.com"
EVE = "eve@example.com"


def api_of(api: Api, email: str | None = None, **how: Any) -> Api:
    """Return a raw client that acts for an account; `how` is that of Control.sign_in."""
    other = object.__new__(Api)
    other.emulator, other.http, other.headers = api.emulator, api.http, {}
    other.token = api.emulator.control.sign_in(email, **how)["access_token"]
    return other


def team_api(api: Api, member: str, **headers: str) -> Api:
    """Return a raw client with a team token, of the app "Team App"."""
    control = api.emulator.control
    known = [app.key for app in api.emulator.service.accounts.apps.values() if app.name == "Team App"]
    key = known[0] if known else control.add_app("Team App", is_team=True)["app_key"]
    client = api_of(api, member, app=key)
    client.headers.update(headers)
    return client


def upload_to_api(api: Api, route: str, arg: Any, body: bytes) -> requests.Response:
    """Call one of the upload-style routes that are on the api host."""
    headers = {"Content-Type": "application/octet-stream", "Dropbox-API-Arg": json.dumps(arg)}
    return api._send("api", route, headers, body)


def rooted(tag: str, namespace_id: str | None = None) -> dict[str, str]:
    """Return the path root header."""
    return {"Dropbox-API-Path-Root": json.dumps({".tag": tag, **({tag: namespace_id} if namespace_id else {})})}


def team_client(emulator: Emulator, api: Api, member: str) -> dropbox.DropboxTeam:
    """Return the SDK's team client."""
    token = team_api(api, member).token
    return dropbox.DropboxTeam(token, session=api.http, max_retries_on_error=0, max_retries_on_rate_limit=0)


def member_id(emulator: Emulator, email: str) -> str:
    """Return the id of somebody as a member of the team."""
    return str(emulator.control.account(email)["team_member_id"])


def share(api: Api, path: str) -> dict[str, Any]:
    """Share a folder and return its metadata."""
    answer = api.ok(api.rpc("sharing/share_folder", {"path": path}))
    assert answer.pop(".tag") == "complete"
    return dict(answer)


def add_member(api: Api, folder: str, email: str, level: str = "editor") -> None:
    """Let somebody into a shared folder."""
    member = {"member": {".tag": "email", "email": email}, "access_level": level}
    answer = api.rpc("sharing/add_folder_member", {"shared_folder_id": folder, "members": [member]})
    assert (answer.status_code, answer.text) == (200, "null")


def invited(api: Api, bob: Api, level: str = "editor") -> str:
    """Ann shares /Shared with Bob, who mounts it."""
    folder = str(share(api, "/Shared")["shared_folder_id"])
    add_member(api, folder, BOB, level)
    bob.ok(bob.rpc("sharing/mount_folder", {"shared_folder_id": folder}))
    return folder
