"""Messages that a client sends in the middle of a key exchange although it must not, or that turn out to be useless.

Services' messages are kept until the new keys are in place. RFC 4253, section 7.1, forbids a side that has sent KEXINIT
to send anything but the messages of the exchange; some clients still continue what was under way. OpenSSH's server
tolerates that; paramiko would end the connection. If a client has guessed the wrong key exchange method and sent its
first message ahead (as Dropbear does), that message is dropped, as section 7 requires.
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

_MESSAGE_BYTES: Final = 256  # the memory that a message takes besides its content
FIRST_SERVICE_MESSAGE: Final = 50  # RFC 4250: lower numbers are messages of the transport itself
_FIRST_EXCHANGE_MESSAGE: Final = 30  # messages from here up to the services' belong to the key exchange method


class PostponingPacketizer(GatewayPacketizer):
    """Keeps services' messages back during a rekey, in order. Used only by the thread that reads."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.is_exchanging: Callable[[], bool] = lambda: False  # from the client's KEXINIT to its NEWKEYS; not at first
        self._postponed: deque[tuple[int, Message]] = deque()
        self._postponed_bytes = 0
        self._sent_in_vain = 0

    def drop_next(self) -> None:
        """Drop the next message of the key exchange method: the client has sent it ahead, and guessed wrong.

        No other message is dropped, as none is ever sent on a guess: before the first new keys, it may come from a
        third party, against whom strict key exchange protects.
        """
        self._sent_in_vain += 1

    def read_message(self) -> tuple[int, Message]:
        """Return the next message that may be handled now.

        Raises:
            SSHException: the client keeps sending instead of exchanging keys; also see the base class's method.
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
