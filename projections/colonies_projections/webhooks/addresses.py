"""Where requests may go: the address that is connected to, not the name that stands in the URL.

A name may mean one address when it is looked at and another when it is used, so the rule is asked of each
socket before it connects. Link-local addresses, where clouds answer with the machine's credentials, are
never connected to, nor what is no single machine's. This machine and private networks are, unless the
service was started for public addresses only: owners say where events go, and receivers stand in there.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

# Outside of link-local, and answering the same questions: AWS over IPv6, Alibaba, Oracle.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in its last 32 bits


class NotAllowed(OSError):
    """An address that nothing is sent to. The message says which, and why."""


def refusal(address: str, *, public_only: bool) -> str | None:
    """Why nothing is sent to this IP address; None: it may be."""
    ip = _plain(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_link_local or ip in _METADATA:
        return f"{address} is where a cloud tells a machine its credentials, or link-local"
    if ip.is_multicast or ip.is_unspecified or (ip.is_reserved and not ip.is_loopback):
        return f"{address} is no address of one machine"
    if public_only and not ip.is_global:
        return f"{address} is not public, and this service sends to public addresses only"
    return None


def _plain(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def socket_maker(*, public_only: bool) -> Callable[[tuple[Any, ...]], socket.socket]:
    """What makes a socket for an address as `getaddrinfo` gives it. Raises NotAllowed."""

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, where = info
        if (reason := refusal(str(where[0]), public_only=public_only)) is not None:
            raise NotAllowed(reason)
        return socket.socket(family, kind, proto)

    return make
