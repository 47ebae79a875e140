"""Which permissions credentials have, found out by calls that change nothing. Knows no terminal."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from fs_dropbox.api.client import Client
from fs_dropbox.authorization import required_scope
from fs_dropbox.errors import ApiError, DropboxError


def permissions(client: Client) -> dict[str, bool | None]:
    """Return of each scope that the product can use whether it is granted; None where a stand-in lacks the route.

    Each call names a file that does not exist, so that one with the permission is answered "not found".

    Raises:
        ApiError, TransportError: something else is wrong.
    """
    nothing = f"/fs-dropbox-check-{secrets.token_hex(8)}"
    probes: dict[str, Callable[[], object]] = {
        "account_info.read": client.account,
        "files.metadata.read": lambda: client.get_metadata(nothing),
        "files.content.read": lambda: client.download(nothing, 0, 1),
        "files.content.write": lambda: client.restore(nothing, "0123456789abc"),
        "sharing.read": lambda: client.sharing.shared_links(nothing),
        "sharing.write": lambda: client.sharing.shared_link(nothing),
    }
    return {scope: _is_granted(scope, probe) for scope, probe in probes.items()}


def _is_granted(scope: str, probe: Callable[[], object]) -> bool | None:
    try:
        probe()
    except DropboxError as error:
        if isinstance(error, ApiError):
            required = required_scope(error.tag, error.message, error.details)
            if required is not None:
                return required != scope
            if error.status in (409, 403):
                return True
        # What has no account is no stand-in.
        if scope != "account_info.read" and error.is_not_taken:
            return None
        raise
    return True
