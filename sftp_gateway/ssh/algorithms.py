"""The algorithms offered to clients, and the explanation logged when a client supports none of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

GCM: Final = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com")
CIPHERS: Final = (*GCM, "aes256-ctr", "aes192-ctr", "aes128-ctr")
# The last two are for libssh2 before 1.11, which has no others: curl, git and PHP on Debian 12 and Ubuntu 22.04.
MACS: Final = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
STRICT_MACS: Final = MACS[:2]
STRICT_KEX: Final = ("mlkem768x25519-sha256",)
KEX: Final = (*STRICT_KEX, "curve25519-sha256", "curve25519-sha256@libssh.org", "diffie-hellman-group16-sha512")
COMPATIBLE_KEX: Final = (
    *KEX,
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
)
COMPATIBLE_HOST_KEYS: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")

NOTHING_IN_COMMON: Final = "in common with the client"
"""A phrase contained in every explanation of why a client cannot be served."""

# paramiko's name for a list in a client's offer, its name in words, and everything that any setting offers. Ciphers and
# MACs are offered once for each direction; a client that supports one in one direction supports it in the other.
_KINDS: Final = (
    ("kex_algo_list", "key exchange", COMPATIBLE_KEX),
    ("server_key_algo_list", "host key", COMPATIBLE_HOST_KEYS),
    ("client_encrypt_algo_list", "cipher", CIPHERS),
    ("client_mac_algo_list", "MAC", MACS),
)
_NO_ALGORITHM: Final = re.compile(r"ext-info-|kex-strict-")
_UNPRINTABLE: Final = re.compile(r"[^\x21-\x7e]")
_MAX_NAMES: Final = 8
_MAX_NAME: Final = 64


def nothing_in_common(offer: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]]) -> str:
    """Explain for which kind of algorithm a client supports none of ours, what it offers, and if a setting would help.

    `offer` is the client's offer, `ours` is what we offered it: both map paramiko's names of the lists to the lists.
    """
    unknown = [(list_name, kind) for list_name, kind, _ in _KINDS if set(offer[list_name]).isdisjoint(ours[list_name])]
    if not unknown:
        return f"no cipher, MAC or compression {NOTHING_IN_COMMON} in one of the directions"
    list_name, kind = unknown[0]
    names = [name for name in offer[list_name] if not _NO_ALGORITHM.match(name)]
    shown = ", ".join(_UNPRINTABLE.sub("?", name[:_MAX_NAME]) for name in names[:_MAX_NAMES])
    more = ", …" if len(names) > _MAX_NAMES else ""
    can_be_served = not any(set(offer[each]).isdisjoint(known) for each, _, known in _KINDS)
    advice = "compatible_algorithms would let it in" if can_be_served else "no setting lets it in"
    return f"no {kind} {NOTHING_IN_COMMON}, which offers {shown or 'none'}{more}; {advice}"
