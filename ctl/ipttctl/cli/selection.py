# SPDX-License-Identifier: GPL-2.0
"""Parsers of the addresses, protocols and ports that select packets."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import Final

from ipttctl.errors import UsageError
from ipttctl.numbers import number
from ipttctl.programs.trace import Network

_ANY: Final = "any"
#: names that /etc/protocols spells differently, or that must work without that file
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}
#: protocols with ports, as /etc/services calls them
_WITH_PORTS: Final = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_PROTOCOL_MAX: Final = 0xFF
_PORT_MAX: Final = 0xFFFF


def network(text: str) -> Network:
    """Parse a network, ``10.0.0.0/8``, or an address, which is a network of one host.

    Bits after the prefix are ignored.

    Raises:
        UsageError: the text is neither.
    """
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(
            f"--ipaddr: '{text}' is neither an IP address nor a network", "as in 10.0.0.0/8"
        ) from None


def protocol(text: str) -> int | None:
    """The number of a transport protocol, None for any.

    Raises:
        UsageError: the text is neither a number nor a known name.
    """
    if text == _ANY:
        return None
    if text in _PROTOCOLS:
        return _PROTOCOLS[text]
    if text[:1].isdecimal():
        return number("--proto", text, _PROTOCOL_MAX)
    with suppress(OSError, ValueError):
        return socket.getprotobyname(text)
    known = ", ".join((*_PROTOCOLS, _ANY))
    raise UsageError(
        f"--proto: there is no protocol '{text}'",
        f"it is {known}, a name of /etc/protocols or a number",
    )


def port(text: str, of_protocol: int | None) -> int:
    """The number of a port, given as a number or by the name of its service.

    Args:
        text: number or name.
        of_protocol: the protocol whose service is meant, None for any that has ports.

    Raises:
        UsageError: there is no such port or service, or protocols have different ports for it.
    """
    if text[:1].isdecimal():
        return number("--port", text, _PORT_MAX, 1)
    found: dict[int, str] = {}
    for wanted, name in _WITH_PORTS.items():
        if of_protocol in {None, wanted}:
            with suppress(OSError, ValueError):
                found.setdefault(socket.getservbyname(text, name), name)
    if not found:
        whose = f" of {_WITH_PORTS[of_protocol]}" if of_protocol in _WITH_PORTS else ""
        raise UsageError(
            f"--port: there is no service '{text}'{whose}",
            "give a number, or a name of /etc/services",
        )
    if len(found) > 1:
        ports = " and ".join(f"{port} of {name}" for port, name in found.items())
        raise UsageError(f"--port: '{text}' is port {ports}", "choose one by --proto")
    return next(iter(found))
