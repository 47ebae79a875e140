"""What a client sends in the middle of an exchange of keys, although it may not or in vain.

Services' messages are kept until the new keys are in place: RFC 4253, section 7.1, lets whoever has sent KEXINIT send
nothing but what the exchange is made of. Some clients go on all the same with what was under way: OpenSSH's server
puts up with it, and paramiko would end the connection. What a client has sent ahead for another exchange than the one
agreed on (Dropbear does) is dropped, as section 7 asks.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from paramiko.message import Message
from paramiko.ssh_exception import SSHException

from sftp_gateway.ssh.packetizer import GatewayPacketizer

MAX_POSTPONED_BYTES: Final = 4 * 1024 * 1024
"""Room for the whole window of a channel in small packets."""

_MESSAGE_BYTES: Final = 256  # what a message costs besides its content
FIRST_SERVICE_MESSAGE: Final = 50  # RFC 4250: below are those of the transport itself
_FIRST_EXCHANGE_MESSAGE: Final = 30  # and these, up to the services', are what an exchange is made of


class PostponingPacketizer(GatewayPacketizer):
    """Keeps messages of services back during an exchange of new keys, in order; of the thread that reads."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.is_exchanging: Callable[[], bool] = lambda: False  # from the client's KEXINIT to its NEWKEYS; not at first
        self._postponed: deque[tuple[int, Message]] = deque()
        self._postponed_bytes = 0
        self._sent_in_vain = 0

    def drop_next(self) -> None:
        """Drop the next message of an exchange: the client has sent it ahead, and guessed wrong.

        No other, which nobody can guess: before the first new keys it may be a third party's, whom strict key exchange
        is against.
        """
        self._sent_in_vain += 1

    def read_message(self) -> tuple[int, Message]:
        """Return the next message that may be dealt with now.

        Raises:
            SSHException: the client sends without end instead of exchanging keys; and see the method of the base.
        """
        if self._postponed and not self.is_exchanging():
            self._postponed_bytes = 0
            return self._postponed.popleft()
        while True:
            kind, message = super().read_message()
            if self._sent_in_vain and _FIRST_EXCHANGE_MESSAGE <= kind < FIRST_SERVICE_MESSAGE:
                self._sent_in_vain -= 1
                continue
            if kind < FIRST_SERVICE_MESSAGE or not self.is_exchanging():
                return kind, message
            self._postponed.append((kind, message))
            self._postponed_bytes += len(message.asbytes()) + _MESSAGE_BYTES
            if self._postponed_bytes > MAX_POSTPONED_BYTES:
                raise SSHException("the client goes on sending instead of exchanging keys")
