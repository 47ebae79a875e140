"""Sockets before there is SSH: where to listen, who calls, the PROXY protocol."""
