"""Password hashes: Argon2id is made; what other servers have made with bcrypt is compared, too. Knows no users."""

from __future__ import annotations

import re
import secrets
from typing import Final

import argon2
import bcrypt
from argon2.exceptions import InvalidHashError, VerificationError

# RFC 9106 and OWASP: 19 MiB, two passes; a stored hash brings its own parameters.
_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

# To compare one of cost 15 takes a core for two seconds, and each more would double that.
_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}")
_BCRYPT_BYTES: Final = 72  # of a password: bcrypt has never read more


def hash_password(password: str) -> str:
    """Return what `password_hash` of a user holds."""
    return _hasher.hash(password)


def begins_as_hash(stored: str) -> bool:
    """Tell whether this is meant as a hash, and not as the password itself."""
    return stored.startswith(("$argon2", "$2a$", "$2b$", "$2y$"))


def is_hash(stored: str) -> bool:
    """Tell whether passwords can be compared with this."""
    try:
        return bool(_BCRYPT.fullmatch(stored) or argon2.extract_parameters(stored))
    except InvalidHashError:
        return False


def matches(stored: str, password: bytes) -> bool:
    """Tell whether it is the password of a hash, in constant time; nothing is that of a damaged one."""
    try:
        if _BCRYPT.fullmatch(stored):
            return bcrypt.checkpw(password[:_BCRYPT_BYTES], stored.encode())
        return _hasher.verify(stored, password)
    except (VerificationError, ValueError):
        return False


def unmatched(stored: str) -> str:
    """Return a hash that nothing matches, and that takes as long to compare as this one."""
    nothing = secrets.token_hex(16)
    if found := _BCRYPT.fullmatch(stored):
        return bcrypt.hashpw(nothing.encode(), bcrypt.gensalt(int(found[1]))).decode()
    return argon2.PasswordHasher.from_parameters(argon2.extract_parameters(stored)).hash(nothing)
