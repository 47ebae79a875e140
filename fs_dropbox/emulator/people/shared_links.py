"""Shared links: who made them for what, with which settings, and whom they let in. Knows no HTTP.

A link belongs to the entry, not to its path: it follows moves and ends with the entry. Needs State.lock.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import RouteError, union
from fs_dropbox.emulator.model.storage import Collection
from fs_dropbox.emulator.model.times import format_time
from fs_dropbox.emulator.model.tree import Entry, File, Folder
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.service import Service

URL = re.compile(r"https?://[^/]+/scl/(?:fi|fo)/([\w-]+)/[^?]*\?(?:.*&)?rlkey=([\w-]+).*")
FORM = re.compile(r"https?://[^/]+/(?:s|sh|scl/fi|scl/fo)/.+")  # of links of all years, whether there is one or not
OLD_VISIBILITY = {"public": "public", "team_only": "team", "password": "public"}
RESOLVED = {"public": "public", "team": "team_only", "no_one": "no_one", "members": "shared_folder_only"}


@dataclass(slots=True)
class Link:
    """One shared link; stored as a document under its key."""

    key: str
    rlkey: str
    entry_id: str
    owner: str  # account id
    created: int
    audience: str = "public"
    access: str = "viewer"
    password: str | None = None
    expires: int | None = None
    allow_download: bool = True

    def path(self, entry: Entry) -> str:
        """Return path and query of the link's URL."""
        name = re.sub(r"[^\w.-]", "-", entry.name, flags=re.ASCII)
        kind = "fi" if isinstance(entry, File) else "fo"
        return f"/scl/{kind}/{self.key}/{name}?rlkey={self.rlkey}&dl=0"


def collection(service: Service) -> Collection:
    """Return the stored links."""
    return service.state.collection("shared_link")


def store(service: Service, link: Link) -> None:
    """Store a link after a change. Needs State.mutation()."""
    collection(service)[link.key] = {name: getattr(link, name) for name in Link.__slots__}


def links_of(service: Service, account: Account) -> list[tuple[Link, Entry]]:
    """Return an account's links whose entries still exist, oldest first."""
    entries = service.state.entries
    mine = [Link(**document) for document in collection(service).values() if document["owner"] == account.account_id]
    return [(link, entries[link.entry_id]) for link in mine if link.entry_id in entries]


def resolve(service: Service, url: str) -> tuple[Link, Entry]:
    """Return the link of a URL with its entry, or raise shared_link_not_found."""
    match = URL.fullmatch(url)
    document = collection(service).get(match[1]) if match is not None else None
    if match is None or document is None or document["rlkey"] != match[2]:
        raise RouteError("shared_link_not_found")
    link = Link(**document)
    entry = service.state.entries.get(link.entry_id)
    if entry is None:
        raise RouteError("shared_link_not_found")
    return link, entry


def check_reader(service: Service, link: Link, reader: Account | None, password: str | None) -> None:
    """Refuse whom a link does not let in; its maker always gets in."""
    if reader is not None and reader.account_id == link.owner:
        return
    if link.expires is not None and link.expires <= service.state.clock():
        raise RouteError("shared_link_not_found")
    owner = service.accounts.accounts[link.owner]
    teammates = reader is not None and reader.team_id is not None and reader.team_id == owner.team_id
    if link.audience in ("no_one", "members") or (link.audience == "team" and not teammates):
        raise RouteError("shared_link_access_denied")
    if link.password is not None and link.password != password:
        raise RouteError("shared_link_access_denied")


def view_of(service: Service, entry: Entry) -> View:
    """Return the look of somebody who has nothing but a link: everything in the entry's namespace."""
    return service.view(None, (entry.inner if isinstance(entry, Folder) else entry).namespace)


def below(service: Service, entry: Entry, path: str) -> Entry:
    """Return the entry at a path relative to a linked folder, or raise PathLookupError."""
    if path in ("", "/"):
        return entry
    return service.view(None, entry.namespace).find(f"{entry.id}{path if path.startswith('/') else '/' + path}")


def create(service: Service, account: Account, entry: Entry, settings: Arguments | None) -> Link:
    """Make a link, or raise settings_error. Needs State.mutation()."""
    link = Link(secrets.token_hex(10), secrets.token_hex(12), entry.id, account.account_id, service.state.now())
    if settings is not None:
        apply(service, link, account, settings)
    store(service, link)
    return link


def apply(service: Service, link: Link, account: Account, settings: Arguments) -> None:
    """Change a link by sharing.SharedLinkSettings, or raise settings_error and leave it as it is."""
    visibility, audience = settings.choice("requested_visibility"), settings.choice("audience")
    password, expires = settings.get("link_password"), settings.timestamp("expires")
    require, allow_download = settings.get("require_password"), settings.get("allow_download")
    wants_password = require or visibility == "password"
    if account.account_type == "basic" and (wants_password or password or expires or allow_download is False):
        raise _settings_error("not_authorized")
    wanted = audience or OLD_VISIBILITY.get(visibility, link.audience)
    if wanted == "team" and account.team_id is None:
        raise _settings_error("not_authorized")
    if (
        (wants_password and not (password or link.password))
        or (password and require is False)
        or (expires is not None and expires <= service.state.clock())
        or (audience and OLD_VISIBILITY.get(visibility, audience) != audience)
        or wanted not in RESOLVED
    ):
        raise _settings_error("invalid_settings")
    link.audience = wanted
    link.password = None if require is False else password or link.password
    link.expires = expires if expires is not None else link.expires
    if access := settings.choice("access"):
        link.access = "editor" if access == "editor" else "viewer"
    if allow_download is not None:
        link.allow_download = allow_download


def _settings_error(tag: str) -> RouteError:
    return RouteError(union("settings_error", settings_error=union(tag)))


def metadata_of(
    service: Service, link: Link, url: str, shown: Entry, reader: Account | None, path_lower: str | None
) -> dict[str, Any]:
    """Return sharing.SharedLinkMetadata of what a link shows: its own entry, or one below it."""
    owns = reader is not None and reader.account_id == link.owner
    metadata: dict[str, Any] = {".tag": "file" if isinstance(shown, File) else "folder", "url": url, "id": shown.id}
    metadata["name"] = shown.name
    if link.expires is not None:
        metadata["expires"] = format_time(link.expires)
    if path_lower is not None:
        metadata["path_lower"] = path_lower
    metadata["link_permissions"] = _permissions(service, link, owns=owns)
    metadata["created_timestamp"] = format_time(link.created)
    if isinstance(shown, File):
        revision = shown.revision
        metadata.update(
            client_modified=format_time(revision.client_modified),
            server_modified=format_time(revision.server_modified),
            rev=revision.rev,
            size=revision.size,
        )
    return metadata


def _permissions(service: Service, link: Link, *, owns: bool) -> dict[str, Any]:
    pays = service.accounts.accounts[link.owner].account_type != "basic"
    resolved = RESOLVED[link.audience]
    if link.password is not None:
        resolved = {"public": "password", "team": "team_and_password"}.get(link.audience, resolved)
    permissions: dict[str, Any] = {
        "resolved_visibility": union(resolved),
        "can_revoke": owns,
        "effective_audience": union(link.audience),
        "link_access_level": union(link.access),
        "visibility_policies": [
            {"policy": union(policy), "resolved_policy": union(policy), "allowed": policy == "public" or pays}
            for policy in ("public", "password")
        ],
        "can_set_expiry": owns and pays,
        "can_remove_expiry": owns and link.expires is not None,
        "allow_download": link.allow_download,
        "can_allow_download": owns,
        "can_disallow_download": owns and pays,
        "allow_comments": True,
        "team_restricts_comments": False,
        "audience_options": [{"audience": union(one), "allowed": True} for one in ("public", "no_one")],
        "can_set_password": owns and pays,
        "can_remove_password": owns and link.password is not None,
        "require_password": link.password is not None,
        "can_use_extended_sharing_controls": owns and pays,
    }
    if owns:
        requested = "team_only" if link.audience == "team" else "public"
        permissions["requested_visibility"] = union(requested if link.password is None else "password")
    else:
        permissions["revoke_failure_reason"] = union("owner_only")
    return permissions
