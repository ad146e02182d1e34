# SPDX-License-Identifier: GPL-2.0
"""Functions that took a packet and handed it on; their events come when they return."""

from __future__ import annotations

import pytest

from ipttctl.stories.model import (
    DeviceStep,
    EndKind,
    Passage,
    RouteStep,
    Story,
    TunnelStep,
)
from ipttproto import Kind, Verdict
from tests.unit.ctl.stories.packets import (
    FORWARD,
    INPUT,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    Traveller,
    ip4,
    one_story,
)

BRIDGE, NETDEV = 7, 5


def way(story: Story) -> list[str]:
    """The steps in a word or two: hooks with their functions, devices."""
    words = []
    for step in story.steps:
        if isinstance(step, Passage):
            names = [story.plot.record(one.at).chain for one in step.calls if one.at is not None]
            words.append(b" ".join(names).decode())
        elif isinstance(step, DeviceStep):
            record = story.plot.record(step.at)
            name = record.out_name if step.sent else record.in_name
            words.append(f"{'to' if step.sent else 'from'} {name.decode()}")
        elif isinstance(step, RouteStep):
            words.append("route")
        elif isinstance(step, TunnelStep):
            words.append("tunnel")
    return words


def changed(story: Story) -> list[str]:
    """The fields of all changes that are told."""
    passages = [step for step in story.steps if isinstance(step, Passage)]
    devices = [step for step in story.steps if isinstance(step, DeviceStep)]
    changes = [one for step in passages for one in step.arrived]
    changes += [one for step in passages for call in step.calls for one in call.changes]
    changes += [one for step in devices for one in step.changes]
    return [one.field.value for one in changes]


def bridged() -> Traveller:
    """A packet that a bridge forwards, past the hooks of IP."""
    packet = Traveller()
    packet.received("p1")
    packet.now(physin_ifindex=3, physout_ifindex=4, out_name=b"br0")
    packet.function("ipt_do_table", 1, "ip_tables", pf=2, hook=FORWARD)
    packet.leave(pf=2, hook=FORWARD)
    packet.function("apparmor_ip_postroute", 1, pf=2, hook=POSTROUTING)
    packet.leave(pf=2, hook=POSTROUTING)
    packet.now(physin_ifindex=0, physout_ifindex=0)
    packet.sent("p2")
    return packet


def returned(packet: Traveller, name: str, module: str, pf: int, hook: int) -> None:
    """A function that had taken the packet returns, and the hook is left."""
    packet.function(name, 1, module, pf=pf, hook=hook, verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN, pf=pf, hook=hook)


def test_br_netfilter() -> None:
    packet = bridged()
    returned(packet, "br_nf_post_routing", "br_netfilter", BRIDGE, POSTROUTING)
    returned(packet, "br_nf_forward", "br_netfilter", BRIDGE, FORWARD)
    packet.freed()
    story = one_story(packet)
    assert way(story) == [
        "from p1",
        "br_nf_forward",
        "ipt_do_table",
        "br_nf_post_routing",
        "apparmor_ip_postroute",
        "to p2",
    ]
    assert story.end.kind is EndKind.LEFT
    assert len(story.plot.handed_on) == 4


def test_it_may_have_gone_far_meanwhile() -> None:
    packet = bridged()
    packet.received("eth0", netns_cookie=2)
    packet.socket(netns_cookie=2)
    packet.freed()
    returned(packet, "br_nf_post_routing", "br_netfilter", BRIDGE, POSTROUTING)
    story = one_story(packet)
    assert way(story)[-3:] == ["apparmor_ip_postroute", "to p2", "from eth0"]
    assert story.end.kind is EndKind.DELIVERED


def balanced(*, local: bool) -> Story:
    """A packet to a service of IPVS, which comes in or is sent here."""
    hook = OUTPUT if local else INPUT
    packet = Traveller(pf=2)
    if not local:
        packet.received("r1")
    packet.now(pf=2, hook=hook)
    packet.function("ipt_do_table", 1, ttl=64)
    packet.now(hook=OUTPUT, out_name=b"r2", daddr=ip4("10.77.2.2"))
    packet.legacy(Kind.POLICY, "raw", "OUTPUT")
    packet.legacy(Kind.EXIT, "raw", "OUTPUT", verdict=1)
    packet.function("again", 1, ttl=63)
    packet.leave(ttl=63)
    packet.sent("r2")
    packet.now(hook=hook, daddr=ip4("203.0.113.5"))
    packet.function("ip_vs_in_hook", 2, "ip_vs", ttl=64, verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN, ttl=64)
    packet.now(daddr=ip4("10.77.2.2"))
    packet.received("eth0", netns_cookie=2)
    packet.freed()
    return one_story(packet)


@pytest.mark.parametrize("local", [False, True])
def test_what_such_an_event_shows_is_older(local: bool) -> None:
    """Of the hook itself too, if the packet was sent past it again."""
    story = balanced(local=local)
    first = [] if local else ["from r1"]
    assert way(story) == [*first, "ipt_do_table ip_vs_in_hook", "again", "to r2", "from eth0"]
    assert changed(story) == ["destination", "ttl"]
    passages = [step for step in story.steps if isinstance(step, Passage)]
    [again] = [step for step in passages if step.arrived]
    assert [change.field.value for change in again.arrived] == ["destination", "ttl"]
    assert [len(call.consulted) for call in again.calls] == [1]


def test_a_flow_table_and_a_rule_that_forwards() -> None:
    packet = Traveller()
    packet.received("r1")
    packet.sent("r2")
    packet.now(pf=NETDEV, hook=0)
    packet.nft(Kind.CHAIN_RULE, "i", 2, Verdict.STOLEN)
    packet.nft(Kind.CHAIN_EXIT, "i", verdict=Verdict.STOLEN)
    packet.function("nft_do_chain_netdev", 1, "nf_tables", verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN)
    packet.freed()
    story = one_story(packet)
    assert way(story) == ["from r1", "nft_do_chain_netdev", "to r2"]
    [ingress] = [step for step in story.steps if isinstance(step, Passage)]
    assert [len(one.rules) for call in ingress.calls for one in call.consulted] == [1]
    assert story.end.kind is EndKind.LEFT


@pytest.mark.parametrize(("pf", "hook"), [(2, PREROUTING), (2, FORWARD), (NETDEV, 0)])
def test_what_keeps_a_packet_has_not_handed_it_on(pf: int, hook: int) -> None:
    packet = Traveller()
    packet.received("r1")
    if hook == FORWARD:
        packet.function("f", 1, pf=2, hook=PREROUTING)
        packet.leave(pf=2, hook=PREROUTING)
    returned(packet, "keeper", "", pf, hook)
    packet.freed()
    story = one_story(packet)
    assert not story.plot.handed_on
    assert story.end.kind is EndKind.KEPT


def test_br_netfilter_keeps_nothing() -> None:
    """It lets a packet that the bridge was sent pass, and returns after its end."""
    packet = Traveller()
    packet.received("br0")
    packet.dropped(3, "ip_error")
    returned(packet, "ip_sabotage_in", "br_netfilter", 2, PREROUTING)
    story = one_story(packet)
    assert len(story.plot.handed_on) == 2
    assert story.end.kind is EndKind.KERNEL


def test_a_packet_in_a_queue_of_ip() -> None:
    """Not one that the bridge's function keeps."""
    packet = Traveller()
    packet.received("p1")
    packet.now(physin_ifindex=3, physout_ifindex=4)
    packet.function("f", 1, pf=2, hook=FORWARD, verdict=Verdict.QUEUE, verdict_data=5)
    packet.leave(Verdict.QUEUE, pf=2, hook=FORWARD, verdict_data=5)
    returned(packet, "br_nf_forward", "br_netfilter", BRIDGE, FORWARD)
    assert one_story(packet).end.kind is EndKind.QUEUED
