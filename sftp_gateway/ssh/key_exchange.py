"""The older key exchanges at a fraction of the price: clients can ask for them without any work of their own."""

from __future__ import annotations

import secrets
from typing import Final

from paramiko.kex_group14 import KexGroup14SHA256
from paramiko.kex_group16 import KexGroup16SHA512

EXPONENT_BITS: Final = 512
"""Twice the longest key that is made of the secret, as OpenSSH has it; RFC 3526 asks for 480 at most. paramiko takes
1024, which is twice the work, all of it with the interpreter's lock held."""


class Group14(KexGroup14SHA256):
    """diffie-hellman-group14-sha256."""

    def _generate_x(self) -> None:
        self.x = secrets.randbits(EXPONENT_BITS - 1) | 1 << (EXPONENT_BITS - 1)


class Group16(Group14):
    """diffie-hellman-group16-sha512, the same with a longer prime."""

    P = KexGroup16SHA512.P
    name = KexGroup16SHA512.name
    hash_algo = KexGroup16SHA512.hash_algo
