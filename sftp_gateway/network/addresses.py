"""Addresses of peers, and the networks that they are in. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Host = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_of(address: str) -> Host:
    """Return an address without its zone; one of IPv4 that came in through an IPv6 socket as what it is."""
    host = ipaddress.ip_address(address.partition("%")[0])
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return mapped or host


def plain(address: str) -> str:
    """Return an address as logs show it and people look for it: one of IPv4 without the ::ffff: of an IPv6 socket."""
    host = host_of(address)
    return str(host) if host.version == 4 else address


def networks_of(names: Iterable[str]) -> list[Network]:
    """Return the networks of these names; a single address is one, too."""
    return [ipaddress.ip_network(name, strict=False) for name in names]


def is_in(networks: Iterable[Network], address: str) -> bool:
    """Tell whether an address is in one of the networks."""
    host = host_of(address)
    return any(host in network for network in networks)
