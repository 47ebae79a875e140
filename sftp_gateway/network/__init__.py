"""Sockets before SSH begins: where to listen, who connects, the PROXY protocol."""
