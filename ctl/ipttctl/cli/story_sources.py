# SPDX-License-Identifier: GPL-2.0
"""The names that stories show: rules, namespaces, processes, sockets, peers, reasons of drops."""

from __future__ import annotations

from functools import cache
from typing import Final

from ipttctl.bpf.drop_reasons import DropReasons
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.events.records import decode_event
from ipttctl.show.story_words import ReasonOf, StorySources
from ipttctl.stories.steps import OF_RULES
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.peers import Device, Peers
from ipttctl.system.who import Sending, Who
from ipttproto import JoinedBatches

_RULE: Final = (
    *("netns_cookie", "netns", "pf", "family", "kind", "flags", "ruleset"),
    *("table_handle", "rule_handle", "rulenum", "table", "chain", "target"),
)
"""The members of an event that say which rule it is of."""

_SENDING: Final = ("pid_start", "cgroup", "pid", "uid", "comm")
"""The members of an event that say which process sent the packet, as ``Sending`` has them."""

_DEVICES: Final = ("netns_cookie", "in_ifindex", "out_ifindex")
"""The members of an event that tell its devices apart from others."""

_DEVICE: Final = (
    *("time", "netns_cookie", "netns"),
    *("in_ifindex", "out_ifindex", "in_name", "out_name"),
)
"""The members that say which devices these are, and when, in the order of events."""

_MOST_KNOWN: Final = 1 << 15
"""Most rules, and most devices, that are known to be looked up already."""


class StoryNames:
    """The sources of a command's stories.

    Processes, rules and devices are looked up when their events come. Stories are told later: by
    then many processes have ended with their namespaces, and rules are other ones.
    """

    def __init__(
        self,
        who: Who,
        names: NamespaceNames,
        rules: RuleTexts | None,
        peers: Peers | None = None,
    ) -> None:
        """Take processes, names of namespaces, and rules and peers unless none are to be shown.

        ``who`` was made before the first event.
        """
        self._who = who
        self._rules = rules
        self._peers = peers
        self._known: set[bytes] = set()
        self._devices: set[bytes] = set()
        self.sources = StorySources(
            rules=rules.of if rules else None,
            names=names,
            sender=who.sender,
            socket=who.receiver,
            reason=_reasons(),
            peer=peers.of if peers else None,
        )

    def learn(self, events: JoinedBatches) -> None:
        """Look up the senders, rules and devices of events that have just come."""
        self._learn_senders(events)
        if self._peers is not None:
            self._learn_devices(events, self._peers)
        if self._rules is not None:
            self._learn_rules(events, self._rules)

    def _learn_senders(self, events: JoinedBatches) -> None:
        pids = events.values("pid")
        if not any(pids):
            return
        keys = events.keys(_SENDING)
        first = {key: place for place, key in enumerate(keys) if pids[place]}
        for start, cgroup, pid, uid, comm in events.rows(_SENDING, first.values()):
            self._who.sender(Sending(start, cgroup, pid, uid, comm.rstrip(b"\0")))

    def _learn_devices(self, events: JoinedBatches, peers: Peers) -> None:
        """Have the other ends of devices that are new; they are asked for again when told."""
        keys = events.keys(_DEVICES)
        new = set(keys).difference(self._devices)
        if not new:
            return
        if len(self._devices) > _MOST_KNOWN:
            self._devices.clear()
        self._devices.update(new)
        places = [keys.index(key) for key in new]
        for time, cookie, netns, into, out, in_name, out_name in events.rows(_DEVICE, places):
            for index, name in ((into, in_name), (out, out_name)):
                peers.of(Device(cookie, netns, index, name.rstrip(b"\0")), time)

    def _learn_rules(self, events: JoinedBatches, rules: RuleTexts) -> None:
        """Have the texts of rules that are new, which are kept for those who ask again."""
        known, kinds = self._known, events.values("kind")
        new = {key: place for place, key in enumerate(events.keys(_RULE)) if key not in known}
        if not new:
            return
        if len(known) > _MOST_KNOWN:
            known.clear()
        known.update(new)
        records = [decode_event(events, at) for at in new.values() if kinds[at] in OF_RULES]
        if records:
            rules.of(records)


def _reasons() -> ReasonOf:
    """The names of drop reasons, which are read at the first drop."""

    @cache
    def of_kernel() -> DropReasons | None:
        return DropReasons.of_kernel()

    def name(number: int) -> str | None:
        reasons = of_kernel()
        return reasons.name(number) if reasons else None

    return name
