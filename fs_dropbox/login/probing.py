"""Which permissions credentials have, found out by calls that change nothing. Knows no terminal."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from fs_dropbox.api.client import Client
from fs_dropbox.authorization import required_scope
from fs_dropbox.errors import ApiError, TransportError


def missing_scopes(client: Client) -> list[str]:
    """Return the scopes that are missing of those that the product can use.

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
    return [scope for scope, probe in probes.items() if not _is_granted(scope, probe)]


def _is_granted(scope: str, probe: Callable[[], object]) -> bool:
    try:
        probe()
    except ApiError as error:
        required = required_scope(error.tag, error.message, error.details)
        if required is not None:
            return required != scope
        if error.status in (409, 403):
            return True
        raise
    except TransportError as error:
        # Stand-ins without a route tell nothing of permissions; what has no account is none.
        if scope == "account_info.read" or not error.is_not_taken:
            raise
    return True
