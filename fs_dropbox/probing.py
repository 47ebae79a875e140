"""Which permissions credentials have, found out by calls that change nothing. Knows no terminal."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from fs_dropbox.client import Client
from fs_dropbox.errors import ApiError

# What Dropbox says where the app itself was never given the scope.
_REQUIRED = re.compile(r"required scope '([^']+)'")


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
        "sharing.write": lambda: client.sharing.shared_link(nothing),
    }
    return [scope for scope, probe in probes.items() if not _is_granted(scope, probe)]


def _is_granted(scope: str, probe: Callable[[], object]) -> bool:
    try:
        probe()
    except ApiError as error:
        required = required_scope(error)
        if required is not None:
            return required != scope
        if error.status in (409, 403):
            return True
        raise
    return True


def required_scope(error: ApiError) -> str | None:
    """Return the scope whose absence is the reason of an error, None when it is another reason."""
    if error.tag[:1] == ("missing_scope",):
        return str(error.details.get("required_scope", ""))
    match = _REQUIRED.search(error.message)
    return match[1] if match else None
