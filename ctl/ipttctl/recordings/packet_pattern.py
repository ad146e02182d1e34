# SPDX-License-Identifier: GPL-2.0
"""The options of ``trace`` that choose packets, asked about the events of a recording.

bpf/trace.c and the kernel's filters decide over a packet where it comes to a hook; here the same is
decided over the packet as an event at the hook shows it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Final

from ipttctl.bpf.filter_run import FilterRun, PartlyKnown
from ipttctl.events import protocols
from ipttctl.families import IP
from ipttctl.programs.trace import TraceOptions
from ipttctl.recordings.kept_packet import kept_bytes, without_ends, without_fields
from ipttctl.recordings.known_packet import Shown, shown_packets
from ipttctl.stories.steps import OF_HOOKS
from ipttproto import EventFlag, JoinedBatches, Kind

_MOST_KEPT: Final = 1 << 16
"""Most answers that are kept for the next events."""

_ICMP: Final = {int(IP[4]): protocols.ICMP, int(IP[6]): protocols.ICMPV6}
_ADDRESS_SIZE: Final = {4: 4, 6: 16}


@dataclass(frozen=True)
class PacketPattern:
    """A pattern of packets: all that is given has to hold where a packet is at a hook.

    ``namespaces`` are cookies; None is any. ``snaplen``: payloads are bytes of packets.
    """

    wanted: TraceOptions
    filter: FilterRun | None = None
    namespaces: Collection[int] | None = None
    snaplen: bool = False
    _known: dict[bytes, bool | None] = field(default_factory=dict, init=False)
    #: of events that are alike but for what a filter does not see
    _taken: dict[tuple[PartlyKnown, ...], bool | None] = field(default_factory=dict, init=False)

    def answers(self, events: JoinedBatches) -> list[bool | None]:
        """Whether the packet of each event fits there; None: the recording does not tell.

        Events that are not at hooks do not fit: no packet is chosen there.
        """
        if len(self._known) > _MOST_KEPT:
            self._known.clear()
            self._taken.clear()
        known, keys = self._known, events.keys(Shown._fields)
        new = {key: place for place, key in enumerate(keys) if key not in known}
        rows = events.rows(Shown._fields, new.values())
        for key, row in zip(new, rows, strict=True):
            shown = Shown._make(row)
            # those of which bytes were kept are asked each by itself
            known[key] = self._answer(shown, None)
        found = [known[key] for key in keys]
        if self.snaplen and self.filter is not None:
            for place, payload in events.payloads.items():
                if (kept := kept_bytes(payload)) is not None:
                    [row] = events.rows(Shown._fields, [place])
                    found[place] = self._answer(Shown._make(row), kept)
        return found

    def never_fits(self, events: JoinedBatches, place: int) -> bool:
        """Whether the packet of an event does not fit, whatever its TOS and TTL are."""
        kept = self._kept(events, place)
        [row] = events.rows(Shown._fields, [place])
        # events of rules do not show them
        shown = Shown._make(row)._replace(kind=int(Kind.RULE))
        return self._answer(shown, kept and without_fields(kept)) is False

    def never_fits_behind_nat(self, events: JoinedBatches, place: int) -> bool:
        """Whether bytes that were kept tell that the packet does not fit, whatever its ends are."""
        kept = self._kept(events, place)
        return (
            kept is not None
            and self.filter is not None
            and self.filter.takes(without_ends(without_fields(kept))) is False
        )

    def _kept(self, events: JoinedBatches, place: int) -> PartlyKnown | None:
        payload = events.payloads.get(place) if self.snaplen else None
        return kept_bytes(payload) if payload else None

    def _answer(self, shown: Shown, kept: PartlyKnown | None) -> bool | None:
        if shown.kind not in OF_HOOKS or not self._fits(shown):
            return False
        if self.filter is None:
            return True
        if not shown.is_ip:
            return False
        # what was cut off may be in the event
        if kept is not None and (answer := self.filter.takes(kept)) is not None:
            return answer
        packets = tuple(shown_packets(shown))
        if packets not in self._taken:
            answers = {self.filter.takes(packet) for packet in packets}
            self._taken[packets] = answers.pop() if len(answers) == 1 else None
        return self._taken[packets]

    def _fits(self, shown: Shown) -> bool:
        """Whether the options but for the expression fit."""
        wanted = self.wanted
        return (
            (self.namespaces is None or shown.netns_cookie in self.namespaces)
            and wanted.family in {None, shown.pf}
            and (wanted.pid is None or _is_sent_by(shown, wanted.pid))
            and self._has_headers(shown)
        )

    def _has_headers(self, shown: Shown) -> bool:
        wanted = self.wanted
        if (wanted.address, wanted.protocol, wanted.port, wanted.icmp_id) == (None,) * 4:
            return True
        return (
            shown.pf in _ICMP
            and wanted.protocol in {None, shown.protocol}
            and (wanted.port is None or _has_port(shown, wanted.port))
            and (wanted.icmp_id is None or _has_echo_id(shown, wanted.icmp_id))
            and (wanted.address is None or self._has_address(shown))
        )

    def _has_address(self, shown: Shown) -> bool:
        network = self.wanted.address
        assert network is not None
        if shown.pf != IP[network.version]:
            return False
        size = _ADDRESS_SIZE[network.version]
        ends = (ip_address(one[:size]) for one in (shown.saddr, shown.daddr))
        return any(end in ip_network(network) for end in ends)


def _is_sent_by(shown: Shown, pid: int) -> bool:
    return bool(shown.flags & EventFlag.PID) and shown.pid == pid


def _has_port(shown: Shown, port: int) -> bool:
    return shown.protocol in protocols.WITH_PORTS and port in {shown.sport, shown.dport}


def _has_echo_id(shown: Shown, number: int) -> bool:
    return (
        not shown.cut
        and shown.protocol == _ICMP[shown.pf]
        and protocols.echo(shown.protocol, shown.icmp_type) is not None
        and shown.icmp_id == number
    )
