"""Everything that touches private parts of paramiko: the transport's wake-up, reading and writing of channels."""

from __future__ import annotations

import paramiko

WINDOW_SIZE = 2 * 2**20


class GatewayTransport(paramiko.Transport):
    """A server's transport whose own thread answers SFTP requests and sends replies; construct it like paramiko's.

    It differs in its packetizer: that waits on the socket without polling, and wakes when a worker has a reply to send.
    """
