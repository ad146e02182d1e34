# SPDX-License-Identifier: GPL-2.0
"""Text for users about links and the module, character by character."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from ipttctl.link.limits import LeftOut
from ipttctl.link.losses import Losses
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import HistoryEntry, Link, LinkChange, SlotStats
from ipttctl.show.render_text import (
    change_line,
    cpu_table,
    history_line,
    left_out_text,
    link_line,
    totals_line,
)
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import Action, Command, Slot
from tests.unit.ctl.link.test_losses import status
from tests.unit.ctl.support import link, nf_link


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_link_line() -> None:
    assert link_line(Link.from_attributes(link())) == (
        "link=3 gen=2 hook=table family=any entry=12(trace_entry) entry.tag=0001020304050607 "
        "exit=13 exit.tag=0000000000000000 filter=4 cookie=0x5 owner=1234(ipttctl) armed=4 "
        "packets=9 selected=5 events=20 nested=1"
    )
    other = link(flags=1, family=10, armed=0, stats={}, programs={})
    assert link_line(Link.from_attributes(other)) == (
        "link=3 gen=2 hook=table family=6 owner=persistent armed=none packets=0 selected=0 events=0"
    )


@pytest.mark.parametrize(("ended", "shown"), [(None, False), (1, False), (0, True)])
def test_a_link_shows_that_packets_still_meet_replaced_programs(
    ended: int | None, shown: bool
) -> None:
    value = replace(Link.from_attributes(nf_link(generation=2)), ended=ended)
    assert (" ended=0 " in link_line(value)) is shown


def test_link_line_of_a_netfilter_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    names = NamespaceNames(())
    monkeypatch.setattr(names, "name", {5: "blue"}.get)
    value = Link.from_attributes(nf_link())
    assert link_line(value, names) == (
        "link=4 gen=1 hook=nf:netdev/ingress@-10 netns=4026532201(blue) device=eth0(2) mode=filter "
        "report-drops packet=21(drop) packet.tag=0001020304050607 packet.runs=9 packet.ns=900 "
        "payload=33(16) owner=1234(ipttctl) rollback-in=1.500s packets=10 selected=9 events=3 "
        "drops=3 lost=1"
    )
    gone = Link.from_attributes(nf_link(gone=1, armed=0, netns=7) | {"netns-cookie": 7})
    assert " netns=7 device=eth0(2) mode=filter report-drops gone=netns " in link_line(gone, names)
    assert "gone=99" in link_line(Link.from_attributes(nf_link(gone=99)))


def test_link_line_with_a_measurement() -> None:
    before = Link.from_attributes(nf_link())
    slots = [{"slot": Slot.PACKET, "runs": 12, "run-time": 1350}]
    after = Link.from_attributes(nf_link(stats={"slot": slots}))
    line = link_line(after, measured=Measurement.between(before, after, 2.0))
    assert "packet.runs=12 packet.ns=1350 packet.measured-runs=3 packet.ns-per-run=150 " in line
    idle = link_line(after, measured=Measurement.between(after, after, 2.0))
    assert "packet.measured-runs=0 payload=" in idle
    new = Measurement.between(None, after, 2.0)
    assert new.slots[Slot.PACKET] == SlotStats(12, 1350)


ENTRY = {
    "generation": 2,
    "action": Action.SWAP,
    "time": 1_000_000_005_123_456_789,
    "pid": 77,
    "uid": 1000,
    "comm": "ipttctl",
    "program": [{"slot": 4, "id": 21, "tag": bytes(range(8)), "name": "drop"}],
}


def test_history_line() -> None:
    assert history_line(HistoryEntry.from_attributes(ENTRY)) == (
        "gen=2 action=swap time=2001-09-09T01:46:45.123456 by=77(ipttctl) uid=1000 "
        "packet=21(drop) packet.tag=0001020304050607"
    )
    back = ENTRY | {"action": Action.ROLLBACK, "pid": 0, "uid": 0, "comm": "", "program": []}
    assert history_line(HistoryEntry.from_attributes(back)) == (
        "gen=2 action=rollback time=2001-09-09T01:46:45.123456 by=module"
    )


CONDITION = {"counter": 6, "comparison": 1, "threshold": 1, "per-packets": 100, "minimum": 5}
VIOLATION = {"condition": CONDITION, "link": 3, "count": 57, "packets": 240, "time": 1020}


def test_swap_that_waits_and_what_became_of_it() -> None:
    lost = {"counter": 5, "comparison": 1, "threshold": 1, "minimum": 1}
    waiting = link(guard=[CONDITION, lost], outcome=1) | {"rollback-in": 2500}
    assert (
        " last-swap=waiting rollback-in=2.500s guard=drops<1/100,min=5 guard=lost<1 packets="
    ) in link_line(Link.from_attributes(waiting))
    back = link(outcome=5, violation=VIOLATION)
    told = (
        "violation=drops<1/100,min=5 violation.count=57 violation.packets=240 "
        "violation.time=1.020s violation.link=3"
    )
    line = link_line(Link.from_attributes(back))
    assert f" last-swap=rollback_guard {told} packets=" in line
    entry = ENTRY | {"action": 5, "violation": VIOLATION, "pid": 0}
    line = history_line(HistoryEntry.from_attributes(entry))
    assert " action=rollback_guard " in line
    assert line.endswith(told)
    asked = link(outcome=4, **{"requester-pid": 7, "requester-comm": "x"})
    change = LinkChange.from_message(Command.LINK_SWAPPED, asked)
    assert change is not None
    assert change_line(change).startswith("swapped by=7(x) link=3 ")


def test_change_line() -> None:
    change = LinkChange.from_message(Command.LINK_DETACHED, link(reason=2))
    assert change is not None
    assert change_line(change).startswith("detached reason=owner link=3 gen=2 ")
    swapped = LinkChange.from_message(Command.LINK_SWAPPED, link())
    assert swapped is not None
    assert change_line(swapped).startswith("swapped link=3 gen=2 ")
    made = HistoryEntry.from_attributes(ENTRY)
    line = change_line(swapped, made=made)
    assert line.startswith("swapped action=swap by=77(ipttctl) uid=1000 link=3 gen=2 ")


def test_cpu_table_lines_up() -> None:
    heading, line = cpu_table([status(7, (1, 2, 3))])
    assert line.split() == ["0", "7", "1", "2", "3"]
    assert len(heading) == len(line)


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        (Losses(), "12 events, 3 packets, lost 0"),
        (
            Losses(observer=4, ring=2, memory=1),
            "12 events, 3 packets, lost 7 (4 by this observer, 2 ring full, 1 no memory)",
        ),
        (Losses(nested=1), "12 events, 3 packets, lost 0, 1 nested program run left out"),
    ],
)
def test_totals(losses: Losses, line: str) -> None:
    assert totals_line(12, 3, losses) == line


def test_totals_of_one() -> None:
    assert totals_line(1, 1, Losses()) == "1 event, 1 packet, lost 0"


def test_packets_that_were_left_out() -> None:
    assert left_out_text(LeftOut(rate=1)) == "1 packet left out (1 over the rate)"
    some = "12 packets left out (5 not of the sample, 7 by the governor)"
    assert left_out_text(LeftOut(5, 0, 7)) == some
    assert totals_line(1, 1, Losses(), LeftOut(5, 0, 7)).endswith(f"lost 0, {some}")
    assert totals_line(1, 1, Losses(), LeftOut()).endswith("lost 0")
