# SPDX-License-Identifier: GPL-2.0
"""The options of ``trace`` and ``record`` that choose packets, and of their text's times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ipttctl.cli import selection
from ipttctl.cli.trace_places import Backend, Family
from ipttctl.errors import UsageError
from ipttctl.families import IP
from ipttctl.numbers import U32_MAX
from ipttctl.programs.trace import TraceOptions
from ipttctl.show.event_text import TimeFormat

FilterArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILTER",
        help="tcpdump expression, in one or several words; it runs before anything else",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "-H",
        "--ipaddr",
        metavar="ADDRESS",
        help="either end: an address or a network, v4 or v6",
    ),
]
ProtocolOption = Annotated[
    str,
    typer.Option(
        "--proto", metavar="PROTO", help="a name as in /etc/protocols, icmp6, a number, any"
    ),
]
PortOption = Annotated[
    str | None,
    typer.Option(
        "-P",
        "--port",
        metavar="PORT",
        help="either end: a number or a name as in /etc/services",
    ),
]
IcmpIdOption = Annotated[
    int | None, typer.Option("--icmpid", min=0, max=65535, help="identifier of a ping")
]
PidOption = Annotated[
    int | None,
    typer.Option("-p", "--pid", min=1, max=U32_MAX, help="process that sends the packet"),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("-N", "--netns", metavar="NETNS", help="inode number, name or path"),
]
CountOption = Annotated[
    int | None,
    typer.Option("-c", "--catch-count", min=1, help="end after this many stories, or events"),
]
PreciseOption = Annotated[bool, typer.Option("-T", "--time", help="clock time to the nanosecond")]
RelativeOption = Annotated[
    bool, typer.Option("-t", "--timestamp", help="seconds since the first event, to the us")
]
Only4Option = Annotated[bool, typer.Option("-4", "--ipv4", help="IPv4 only")]
Only6Option = Annotated[bool, typer.Option("-6", "--ipv6", help="IPv6 only")]
BackendOption = Annotated[
    Backend | None,
    typer.Option("--backend", help="rules of iptables-legacy only, or of nftables only"),
]
CommandOption = Annotated[
    str | None,
    typer.Option(
        "--cmd",
        metavar="COMMAND",
        help="run this line by a shell once packets are watched, and end after it",
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        help="every rule and function of a story; with --lines columns for link and generation",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PacketChoice:
    """The packets that a command line chooses: by programs, of an IP version, of a back end."""

    expression: str
    wanted: TraceOptions
    family: Family
    namespace: str | None
    backend: Backend | None


def packet_choice(
    *,
    expression: list[str] | None,
    address: str | None,
    protocol: str,
    port: str | None,
    icmp_id: int | None,
    pid: int | None,
    namespace: str | None,
    only4: bool,
    only6: bool,
    backend: Backend | None,
) -> PacketChoice:
    """The choice that options make.

    Raises:
        UsageError: they make no sense.
    """
    if only4 and only6:
        raise UsageError("-4 and -6 exclude each other", "leave both out for both")
    family: Family = 4 if only4 else 6 if only6 else None
    host = None if address is None else selection.network(address)
    if host and family not in {None, host.version}:
        raise UsageError(f"--ipaddr: {address} is not of IPv{family}")
    number = selection.protocol(protocol)
    wanted = TraceOptions(
        address=host,
        protocol=number,
        port=None if port is None else selection.port(port, number),
        icmp_id=icmp_id,
        pid=pid,
        family=None if family is None else int(IP[family]),
    )
    return PacketChoice(
        expression=" ".join(expression or []),
        wanted=wanted,
        family=family,
        namespace=namespace,
        backend=backend,
    )


def time_format(*, precise: bool, relative: bool) -> TimeFormat:
    """The form of times that -T and -t choose.

    Raises:
        UsageError: both are given.
    """
    if precise and relative:
        raise UsageError("-T and -t exclude each other")
    if precise:
        return TimeFormat.NANOSECONDS
    return TimeFormat.RELATIVE if relative else TimeFormat.CLOCK
