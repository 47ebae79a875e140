"""Connections to a gateway: SFTP on one, and waiting until none is left."""

from __future__ import annotations

from sftp_gateway import SFTPGateway
from tests.waiting import eventually


def wait_for_no_connection(gateway: SFTPGateway) -> None:
    eventually(lambda: not gateway.connections, "connections are left")
