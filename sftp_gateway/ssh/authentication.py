"""Private parts of paramiko's authentication handler: what it accepts, and from whom.

Written for paramiko 5.0 and 5.1; tests/sftp_gateway/ssh/test_transport.py fails clearly when a part used here moves.
"""

from __future__ import annotations

import logging
from typing import Final

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import cMSG_UNIMPLEMENTED
from paramiko.message import Message
from paramiko.ssh_exception import SSHException

MAX_KEY_BYTES: Final = 8 * 1024
"""The longest public key that is parsed: the longest RSA key, of 16,384 bits, takes 2 KiB; its certificate a bit more.
The time that OpenSSL takes to parse a key grows with the square of its length: seconds for one that fills a packet."""

_MAX_PROMPT_ANSWERS: Final = 8

_logger = logging.getLogger(__name__)


class BoundedAuthHandler(AuthHandler):
    """Answers authentication requests; unlike paramiko's handler, treats a key of unknown kind as one that is wrong."""

    def _generate_key_from_request(self, algorithm: str, keyblob: bytes) -> paramiko.PKey:
        key: paramiko.PKey | None = None
        if len(keyblob) <= MAX_KEY_BYTES:
            try:
                key = super()._generate_key_from_request(algorithm, keyblob)  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - whatever the bytes break in a key parser, the key does not fit
                _logger.debug("key of kind %r cannot be read: %s", algorithm, error)
        return key if key is not None else UnusableKey()

    def _parse_service_request(self, m: Message) -> None:
        """Refuse a service request after the login, as OpenSSH does.

        Twisted repeats the request after a rekey, and continues if it is refused.
        """
        if not self.is_authenticated():
            super()._parse_service_request(m)  # type: ignore[misc]
            return
        refusal = Message()
        refusal.add_byte(cMSG_UNIMPLEMENTED)
        refusal.add_int(m.seqno)
        self.transport._send_message(refusal)  # type: ignore[attr-defined]

    def _parse_userauth_info_response(self, m: Message) -> None:
        """Ignore the response after the login, as RFC 4252 requires: a client could sign in again and be counted twice.

        Raises:
            SSHException: the response has an absurd number of answers, over which paramiko would loop before any login.
        """
        if self.is_authenticated():
            return
        if Message(m.get_remainder()).get_int() > _MAX_PROMPT_ANSWERS:
            raise SSHException("too many answers to one prompt")
        super()._parse_userauth_info_response(m)  # type: ignore[misc]


class UnusableKey(paramiko.PKey):
    """A public key that this server cannot read or verify; equal only to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.public_blob = None

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def asbytes(self) -> bytes:
        return b""

    def get_name(self) -> str:
        return "unusable"

    def verify_ssh_sig(self, data: bytes, msg: Message) -> bool:  # noqa: ARG002
        return False
