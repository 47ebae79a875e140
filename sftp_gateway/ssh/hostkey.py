"""The server's host keys: loaded, or created on first start, readable only by their owner. Knows nothing else."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

import paramiko
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_curve_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sftp_gateway.private_directories import make_private

MODERN: Final = "ed25519"
COMPATIBLE: Final = (MODERN, "ecdsa", "rsa")
"""Key types that clients of the 2010s support: JSch cannot verify Ed25519, phpseclib signs with RSA only if the host
keys include RSA."""

_RSA_BITS = 3072


class HostKeyError(Exception):
    """The host key cannot be used; the text is one line that says why and what to do."""


def load_or_create_host_key(path: Path, kind: str = MODERN) -> paramiko.PKey:
    """Return the key in the file; if there is no file, first create it with a key of this kind and mode 0600."""
    if not path.exists():
        create_private_file(path, _new_key(kind))
    return load_host_key(path)


def load_host_key(path: Path) -> paramiko.PKey:
    """Return the private key in the file; refuse one that others on this machine can read."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise HostKeyError(f"{path}: others can read this host key (mode {mode:04o}); run: chmod 600 {path}")
        return paramiko.PKey.from_path(path)
    except OSError as error:
        raise HostKeyError(f"{path}: the host key cannot be read: {error.strerror or error}") from error
    except (paramiko.PasswordRequiredException, TypeError) as error:  # the second comes from `cryptography`
        raise HostKeyError(
            f"{path}: a host key must have no passphrase; take it off: ssh-keygen -p -f {path}"
        ) from error
    except (paramiko.SSHException, ValueError) as error:
        text = "not a private host key; name another in host_keys, or remove this one to have one made"
        raise HostKeyError(f"{path}: {text}") from error


def create_private_file(path: Path, content: bytes) -> None:
    """Create the file in one step with mode 0600, directories with 0700; keep a file that has appeared meanwhile."""
    try:
        make_private(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except OSError as error:
        reason = f"{error.filename} is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise HostKeyError(f"{path}: cannot be made: {reason}; choose another folder with --state-folder") from error


def _new_key(kind: str) -> bytes:
    key: Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey
    if kind == "ecdsa":
        key = generate_curve_key(SECP256R1())
    elif kind == "rsa":
        key = generate_rsa_key(public_exponent=65537, key_size=_RSA_BITS)
    else:
        key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
