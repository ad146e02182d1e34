# SPDX-License-Identifier: GPL-2.0
"""The packets of the tests with real tools: ``python -m tests.kernel.tools.packets`` prints them.

docs/owners.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_PORT: Final = 5001


@dataclass(frozen=True)
class Packet:
    """A SYN, and what becomes of it."""

    words: str
    fate: str
    """As ``connect`` names it; ``page``, where a container sends one; empty if any will do."""
    decided: str
    """The owner and the subject of the rule that decides; or the chain whose policy does."""
    verdict: str


TOOLS: Final[dict[str, tuple[Packet, ...]]] = {
    "firewalld, nftables": (
        Packet("port of the zone", "answered", "firewalld: zone public, allow", "accept"),
        Packet("another port", "rejected", "firewalld: zone public", "drop"),
        Packet("to another zone", "rejected", "firewalld: zone public", "drop"),
    ),
    "firewalld, iptables": (
        Packet("port of the zone", "answered", "firewalld: zone public, allow", "accept"),
        Packet("another port", "refused", "firewalld: zone public", "drop"),
        Packet("to another zone", "refused", "firewalld: zone public", "drop"),
    ),
    "ufw": (
        Packet("allowed port", "answered", "ufw: rule for port 8080, input", "accept"),
        Packet("another port", "silent", "policy of INPUT", "drop"),
        Packet("rejected port", "refused", "ufw: rule for port 8082, input", "drop"),
        Packet("through the router", "silent", "policy of FORWARD", "drop"),
    ),
    "Docker": (
        Packet("published port", "page", "docker: published port 8080", "accept"),
        Packet(
            "published port, from the container", "page", "docker: published port 8080", "accept"
        ),
        Packet("port that is not published", "silent", "policy of FORWARD", "drop"),
    ),
    "Podman, netavark": (
        Packet("published port", "page", "podman: published port 8080", "accept"),
    ),
    "Podman, CNI": (Packet("published port", "page", "cni: portmap, host port 8080", "accept"),),
    "libvirt, default network": (
        Packet(
            "DNS, from a guest",
            "answered",
            "libvirt: DNS and DHCP for guests behind virbr0",
            "accept",
        ),
        Packet("outside, from a guest", "answered", "libvirt: from guests behind virbr0", "accept"),
        Packet("to a guest", "refused", "libvirt: to guests behind virbr0", "drop"),
    ),
    "fail2ban, nftables": (
        Packet("banned address", "refused", "fail2ban: jail web, ban", "drop"),
        Packet("banned address, another port", "answered", "policy of f2b-chain", "accept"),
    ),
    "fail2ban, iptables": (
        Packet("banned address", "refused", "fail2ban: jail web, ban", "drop"),
        Packet("banned address, another port", "answered", "policy of INPUT", "accept"),
    ),
    "workstation.nft": (
        Packet("from outside", "silent", "nobody", "drop"),
        Packet("from this host", "answered", "nobody", "accept"),
    ),
    "nat.nft": (
        Packet("translated port", "answered", "nobody", "accept"),
        Packet("another port", "refused", "policy of prerouting", "accept"),
    ),
}


def table() -> str:
    """A row for each packet."""
    rows = [
        f"| {tool} | {packet.words} | {packet.fate} | `{packet.decided}` | {packet.verdict} |"
        for tool, packets in TOOLS.items()
        for packet in packets
    ]
    head = "| Tool | Packet | Fate | Decided by | Verdict |\n|---|---|---|---|---|"
    return "\n".join([head, *rows])


if __name__ == "__main__":
    print(table())
