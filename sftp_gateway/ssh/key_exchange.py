"""Limits on what clients can make the server compute without effort: cheaper key exchanges, at a bounded rate."""

from __future__ import annotations

import secrets
from typing import Final

from paramiko.kex_group14 import KexGroup14SHA256
from paramiko.kex_group16 import KexGroup16SHA512

EXPONENT_BITS: Final = 512
"""Twice the length of the longest key derived from the secret, as in OpenSSH; RFC 3526 asks for at most 480. paramiko
uses 1024, which takes twice the work, all of it with the interpreter's lock held."""


class Group14(KexGroup14SHA256):
    """diffie-hellman-group14-sha256."""

    def _generate_x(self) -> None:
        self.x = secrets.randbits(EXPONENT_BITS - 1) | 1 << (EXPONENT_BITS - 1)


class Group16(Group14):
    """diffie-hellman-group16-sha512, the same with a longer prime."""

    P = KexGroup16SHA512.P
    name = KexGroup16SHA512.name
    hash_algo = KexGroup16SHA512.hash_algo


class Pace:
    """Limits how often one client gets new keys, whatever limits the client has set for itself. Not thread-safe.

    Good clients exchange keys after a gigabyte or an hour, some after a megabyte or a few hundred packets. Every
    exchange that was earned by transferred bytes or elapsed time is carried out at once, and so is a long burst more.
    """

    BURST = 100
    SECONDS_EACH = 0.5
    BYTES_EACH = 2**20

    def __init__(self, now: float) -> None:
        self._left = float(self.BURST)
        self._at = now

    def take(self, transferred: int, now: float) -> float:
        """Count an exchange, after `transferred` bytes under the last keys; return the seconds that it has to wait."""
        earned = (now - self._at) / self.SECONDS_EACH + transferred / self.BYTES_EACH
        self._left = min(self.BURST, self._left + earned) - 1
        self._at = now
        return max(0.0, -self._left * self.SECONDS_EACH)
