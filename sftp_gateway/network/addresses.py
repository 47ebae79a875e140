"""Addresses of peers, and the networks that they belong to. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Host = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_of(address: str) -> Host:
    """Return an address without its zone; an IPv4 address mapped to IPv6 (::ffff:…) is returned as IPv4."""
    host = ipaddress.ip_address(address.partition("%")[0])
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return mapped or host


def plain(address: str) -> str:
    """Return an address as logs show it and people search for it: IPv4 without the ::ffff: of an IPv6 socket."""
    host = host_of(address)
    return str(host) if host.version == 4 else address


def networks_of(names: Iterable[str]) -> list[Network]:
    """Return the networks with these names; a single address is a network, too."""
    return [ipaddress.ip_network(name, strict=False) for name in names]


def is_in(networks: Iterable[Network], address: str) -> bool:
    """Return whether an address is in one of the networks."""
    host = host_of(address)
    return any(host in network for network in networks)
