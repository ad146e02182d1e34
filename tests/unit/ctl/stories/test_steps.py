# SPDX-License-Identifier: GPL-2.0
"""The steps of a packet: hooks, tables, changes, routes, devices, tunnels."""

from __future__ import annotations

from typing import Any

import pytest

from ipttctl.stories.model import (
    DeviceStep,
    PacketChange,
    PacketField,
    Passage,
    RouteStep,
    SocketStep,
    Story,
    TunnelStep,
)
from ipttproto import Conntrack, Kind, Verdict
from tests.unit.ctl.stories.packets import (
    FORWARD,
    INPUT,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    Traveller,
    flood,
    ip4,
    one_story,
    to_docker,
)


def passages(story: Story) -> list[Passage]:
    return [step for step in story.steps if isinstance(step, Passage)]


def changes(story: Story) -> list[PacketChange]:
    return [
        change for passage in passages(story) for call in passage.calls for change in call.changes
    ]


def test_the_example() -> None:
    story = one_story(to_docker())
    kinds = [type(step) for step in story.steps]
    assert kinds == [DeviceStep, Passage, RouteStep, Passage]
    prerouting, forward = passages(story)
    tables = [
        story.plot.record(one.at).table for call in prerouting.calls for one in call.consulted
    ]
    assert tables == [b"raw", b"mangle", b"nat"]
    assert [len(call.consulted) for call in prerouting.calls] == [1, 0, 1, 1]
    [nat] = prerouting.calls[3].consulted
    assert [story.plot.record(rule.at).rulenum for rule in nat.rules] == [2, 3]
    assert forward.end is not None


def test_a_change_is_of_the_function_after_which_it_shows() -> None:
    story = one_story(to_docker())
    [state, destination] = changes(story)
    assert (state.field, state.initial) == (PacketField.CT_STATE, True)
    assert destination.field is PacketField.DESTINATION
    nat = passages(story)[0].calls[3]
    assert nat.changes == (destination,)
    assert nat.at == destination.after
    assert story.headers[destination.before].dport == 8080
    assert story.headers[destination.after].dport == 80


def test_all_that_functions_change() -> None:
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.function("first", 1)
    packet.function(
        *("second", 2),
        mark=1,
        skb_priority=2,
        ttl=63,
        tos=0xB8,
        ct_state=Conntrack.UNTRACKED,
    )
    packet.function(
        *("third", 3),
        mark=1,
        skb_priority=2,
        ttl=63,
        tos=0xB8,
        ct_state=Conntrack.NEW,
        ct_mark=7,
        ct_zone=3,
    )
    found = [(c.field.value, c.initial) for c in changes(one_story(packet))]
    assert found == [
        ("mark", False),
        ("priority", False),
        ("ct_state", False),
        ("ttl", False),
        ("tos", False),
        ("ct_state", False),
        ("ct_mark", False),
        ("ct_zone", False),
    ]


def test_the_mark_that_a_connection_has_is_no_change() -> None:
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.function("first", 1)
    packet.function("conntrack", 2, ct_state=Conntrack.ESTABLISHED, ct_mark=7, ct_zone=1)
    assert all(change.initial for change in changes(one_story(packet)))


def test_a_mark_before_any_function_is_of_the_first_rule() -> None:
    """Tables show the mark that the packet came with."""
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.legacy(Kind.RULE, "mangle", "PREROUTING", 1, mark=0)
    packet.legacy(Kind.EXIT, "mangle", "PREROUTING", mark=0, verdict=1)
    packet.function("iptable_mangle_hook", 1, mark=5)
    [change] = changes(one_story(packet))
    assert (change.field, change.after) == (PacketField.MARK, 2)


def test_changes_between_hooks_are_nobodys() -> None:
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.function("f", 1, mark=1, ttl=64)
    packet.leave(mark=1)
    packet.now(hook=FORWARD, out_name=b"eth1")
    packet.function("g", 1, mark=2, ttl=63)
    story = one_story(packet)
    assert changes(story) == []
    [arrived] = passages(story)[1].arrived
    assert arrived.field is PacketField.MARK


def forwarded_past(hook: int | None) -> Story:
    """The story of a packet that came in, and met this hook before POSTROUTING."""
    packet = Traveller(pf=2)
    packet.received("eth0")
    if hook is not None:
        packet.now(pf=2, hook=hook)
        packet.function("f", 1, ttl=64)
        packet.leave(ttl=64)
    packet.now(pf=2, hook=POSTROUTING, out_name=b"eth1")
    packet.function("g", 1, ttl=63)
    return one_story(packet)


@pytest.mark.parametrize(("hook", "changed"), [(PREROUTING, ["ttl"]), (None, [])])
def test_a_packet_is_forwarded_where_no_function_is_at_that_hook(
    hook: int | None, changed: list[str]
) -> None:
    story = forwarded_past(hook)
    [route] = [step for step in story.steps if isinstance(step, RouteStep)]
    assert route.forwarded
    assert story.plot.record(route.at).out_name.rstrip(b"\0") == b"eth1"
    assert [change.field.value for change in route.changes] == changed
    assert passages(story)[-1].arrived == ()


@pytest.mark.parametrize("hook", [INPUT, OUTPUT])
def test_what_this_host_sends_is_not_forwarded(hook: int) -> None:
    """An answer in the same skb, or a packet of a load balancer that works at INPUT."""
    assert not [step for step in forwarded_past(hook).steps if isinstance(step, RouteStep)]


def test_a_device_that_only_a_hook_names() -> None:
    """A macvlan takes packets from the device below it, in another namespace."""
    packet = Traveller()
    packet.received("r1")
    packet.now(pf=2, hook=PREROUTING, netns_cookie=2, in_name=b"v0")
    packet.function("f", 1)
    packet.leave()
    packet.now(hook=INPUT)
    packet.function("g", 1)
    story = one_story(packet)
    devices = [step for step in story.steps if isinstance(step, DeviceStep)]
    assert [(story.plot.record(d.at).in_name, d.crossed) for d in devices] == [
        (b"r1", False),
        (b"v0", True),
    ]


def test_a_device_that_only_a_second_hook_names() -> None:
    """A VRF, behind the device by which the packet came in before a trace began to follow it."""
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.function("f", 1)
    packet.leave()
    packet.now(in_name=b"vrf0")
    packet.function("f", 1)
    packet.leave()
    packet.now(hook=INPUT)
    packet.function("g", 1)
    packet.freed()
    story = one_story(packet)
    [step] = [step for step in story.steps if isinstance(step, DeviceStep)]
    assert (step.sent, story.plot.record(step.at).in_name) == (False, b"vrf0")


def test_a_bridge_that_br_netfilter_names_took_nothing() -> None:
    packet = Traveller()
    packet.received("p1")
    packet.now(pf=2, in_name=b"br0", physin_ifindex=3)
    packet.function("f", 1, hook=PREROUTING)
    packet.leave(hook=PREROUTING)
    # no route led there either
    packet.now(out_name=b"br0", physout_ifindex=4)
    packet.function("g", 1, hook=FORWARD)
    packet.leave(hook=FORWARD)
    kinds = [type(step) for step in one_story(packet).steps]
    assert kinds == [DeviceStep, Passage, Passage]


@pytest.mark.parametrize("matched", [False, True])
def test_a_table_whose_rules_did_not_match_changed_nothing(matched: bool) -> None:
    """Only functions show the TTL: it may have been another one before the table was asked."""
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.function("f", 1, ttl=64)
    packet.leave(ttl=64)
    packet.now(hook=INPUT)
    packet.legacy(Kind.RULE if matched else Kind.POLICY, "mangle", "INPUT", 1)
    packet.legacy(Kind.EXIT, "mangle", "INPUT", verdict=1)
    packet.function("iptable_mangle_hook", 1, ttl=5)
    story = one_story(packet)
    found = changes(story) if matched else list(passages(story)[1].arrived)
    assert [change.field.value for change in found] == ["ttl"]


def test_a_hook_after_a_queue_is_no_other_route() -> None:
    packet = Traveller(pf=2, hook=FORWARD, in_name=b"eth0", out_name=b"eth1")
    packet.function("f", 1, verdict=Verdict.QUEUE)
    packet.leave(Verdict.QUEUE)
    packet.legacy(Kind.POLICY, "filter", "FORWARD", 1)
    packet.legacy(Kind.EXIT, "filter", "FORWARD", verdict=1)
    kinds = [type(step) for step in one_story(packet).steps]
    assert kinds == [RouteStep, Passage, Passage]


def test_the_mark_that_comes_to_a_hook_is_not_of_its_rules() -> None:
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.function("f", 1, mark=1)
    packet.leave(mark=1)
    packet.now(hook=INPUT)
    packet.nft(Kind.CHAIN_RULE, "input", 1, mark=2)
    packet.nft(Kind.CHAIN_EXIT, "input", mark=2)
    packet.function("nft_do_chain_inet", 1, mark=3)
    story = one_story(packet)
    assert [change.after for change in passages(story)[1].arrived] == [2]
    assert [(one.field, one.before, one.after) for one in changes(story)] == [
        (PacketField.MARK, 2, 4)
    ]


def forwarded(*, with_rule: bool = True, **members: Any) -> Story:
    """A packet in PREROUTING, and in FORWARD as it then is, where a rule may meet it first."""
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0", tos=0x10)
    packet.function("f", 1, ttl=64)
    packet.leave(ttl=64)
    packet.now(hook=FORWARD, out_name=b"eth1")
    if with_rule:
        packet.nft(Kind.CHAIN_RULE, "forward", 1)
        packet.nft(Kind.CHAIN_EXIT, "forward")
    packet.function("nft_do_chain_inet", 1, **members)
    packet.leave(**members)
    return one_story(packet)


@pytest.mark.parametrize("with_rule", [False, True])
def test_forwarding_lowers_the_ttl(with_rule: bool) -> None:
    story = forwarded(with_rule=with_rule, ttl=63, skb_priority=6)
    [route] = [step for step in story.steps if isinstance(step, RouteStep)]
    at = route.at + (2 if with_rule else 0)
    assert {change.field: change.after for change in route.changes} == {
        PacketField.TTL: at,
        PacketField.PRIORITY: at,
    }
    assert changes(story) == []
    assert passages(story)[1].arrived == ()


def test_another_ttl_is_told() -> None:
    story = forwarded(ttl=5, skb_priority=1)
    assert {change.field for change in changes(story)} == {PacketField.TTL, PacketField.PRIORITY}
    story = forwarded(with_rule=False, ttl=5)
    assert [change.field for change in passages(story)[1].arrived] == [PacketField.TTL]
    # without forwarding, one less is a change as any other
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.function("f", 1, ttl=64)
    packet.function("g", 2, ttl=63)
    packet.leave(ttl=63)
    packet.now(hook=INPUT)
    packet.function("h", 1, ttl=62)
    story = one_story(packet)
    assert [change.field for change in changes(story)] == [PacketField.TTL]
    assert [change.field for change in passages(story)[1].arrived] == [PacketField.TTL]


@pytest.mark.parametrize("with_rule", [False, True])
@pytest.mark.parametrize("state", [Conntrack.NONE, Conntrack.NEW])
def test_what_the_kernel_takes_at_a_namespace_is_no_change(
    with_rule: bool, state: Conntrack
) -> None:
    known: dict[str, Any] = {"ct_state": Conntrack.ESTABLISHED, "ct_mark": 5, "ct_zone": 3}
    packet = Traveller(pf=2, hook=POSTROUTING, out_name=b"veth0")
    packet.function("f", 1, mark=1, skb_priority=2, **known)
    packet.leave(mark=1, skb_priority=2, **known)
    packet.sent("veth0")
    packet.now(netns=4026532300, netns_cookie=8)
    packet.received("eth0")
    packet.now(pf=2, hook=PREROUTING)
    if with_rule:
        packet.nft(Kind.CHAIN_RULE, "pre", 1)
        packet.nft(Kind.CHAIN_EXIT, "pre")
    packet.function("g", 1, ct_state=state)
    packet.function("h", 2, ct_state=state, mark=7)
    story = one_story(packet)
    assert [passage.arrived for passage in passages(story)] == [(), ()]
    assert [change.field for change in changes(story)] == [PacketField.MARK]


def test_a_connection_is_lost_between_hooks_only() -> None:
    """A tunnel, or a device of the same namespace, takes it from a packet: no function does."""
    packet = Traveller(pf=2, hook=OUTPUT, out_name=b"veth0")
    packet.function("f", 1, ct_state=Conntrack.NEW, ct_mark=5)
    packet.leave(ct_state=Conntrack.NEW, ct_mark=5)
    packet.now(hook=PREROUTING, in_name=b"veth1", out_name=b"")
    packet.nft(Kind.CHAIN_RULE, "pre", 1)
    packet.nft(Kind.CHAIN_EXIT, "pre")
    packet.function("g", 1)
    packet.function("h", 2, ct_state=Conntrack.NEW, ct_mark=5)
    assert all(change.initial for change in changes(one_story(packet)))


def test_fragments_that_are_put_together_change_no_port() -> None:
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0", sport=0, dport=0)
    packet.function("f", 1)
    packet.now(sport=1, dport=2)
    packet.function("ipv4_conntrack_defrag", 2)
    assert changes(one_story(packet)) == []


def test_events_that_tell_no_headers_change_nothing() -> None:
    packet = Traveller(pf=2, hook=OUTPUT, out_name=b"eth0")
    packet.function("f", 1)
    nothing = {"saddr": bytes(16), "daddr": bytes(16), "ethertype": 0, "sport": 0, "dport": 0}
    packet.freed(**nothing)
    story = one_story(packet)
    assert story.headers[1] is story.headers[0]
    assert [type(step) for step in story.steps] == [Passage]


def test_nat_that_knows_the_connection() -> None:
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.legacy(Kind.KNOWN, "nat", "PREROUTING")
    packet.nft(Kind.CHAIN_KNOWN, "prerouting")
    packet.function("nf_nat_ipv4_pre_routing", 1)
    [call] = passages(one_story(packet))[0].calls
    assert [one.known for one in call.consulted] == [True, True]


def test_the_same_hook_again_is_another_passage() -> None:
    packet = Traveller(pf=2, hook=POSTROUTING, out_name=b"eth0")
    for _ in range(2):
        packet.function("f", 1)
        packet.leave()
    assert len(passages(one_story(packet))) == 2


def test_a_function_that_is_called_again_is_the_same_passage() -> None:
    packet = Traveller(pf=2, hook=POSTROUTING, out_name=b"eth0")
    packet.function("f", 1, verdict=Verdict.REPEAT)
    packet.function("f", 1)
    packet.leave()
    [passage] = passages(one_story(packet))
    assert len(passage.calls) == 2


def test_ip_within_a_function_of_a_bridge() -> None:
    packet = Traveller(pf=7, hook=PREROUTING, in_name=b"br0")
    packet.function("ebt", 1)
    packet.function("ip", 1, pf=2)
    packet.leave(pf=2)
    packet.function("br_nf_pre_routing", 2, verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN)
    outer, inner = passages(one_story(packet))
    assert (len(outer.calls), len(inner.calls)) == (2, 1)


def test_ways_that_routing_chose() -> None:
    story = one_story(*flood(1))
    assert [step for step in story.steps if isinstance(step, RouteStep)] == [RouteStep(3)]
    packet = Traveller(pf=2, hook=OUTPUT, out_name=b"eth0")
    packet.function("f", 1)
    packet.leave()
    packet.now(hook=POSTROUTING, out_name=b"eth1")
    packet.function("f", 1)
    [route] = [s for s in one_story(packet).steps if isinstance(s, RouteStep)]
    assert route == RouteStep(2, rerouted=True)


def test_another_namespace() -> None:
    packet = Traveller(pf=2, hook=OUTPUT, out_name=b"veth0")
    packet.function("f", 1)
    packet.sent("veth0")
    packet.now(netns=4026532300, netns_cookie=8)
    packet.received("eth0")
    packet.now(pf=2, hook=INPUT)
    packet.socket()
    story = one_story(packet)
    [sent, received] = [step for step in story.steps if isinstance(step, DeviceStep)]
    assert (sent.sent, sent.crossed) == (True, False)
    assert (received.sent, received.crossed) == (False, True)
    assert story.plot.cookies == (1, 8)
    assert isinstance(story.steps[-1], SocketStep)


def test_tunnels() -> None:
    packet = Traveller(pf=2, hook=POSTROUTING, out_name=b"gre1", length=60)
    packet.function("f", 1)
    packet.sent("gre1")
    inner = dict(packet.members)
    packet.now(saddr=ip4("10.0.0.1"), daddr=ip4("10.0.0.2"), protocol=47, length=84)
    packet.now(hook=OUTPUT, out_name=b"eth0", sport=0, dport=0)
    packet.function("f", 1)
    packet.leave()
    packet.received("eth0")
    packet.members |= inner
    packet.now(in_name=b"gre1", out_name=b"", hook=PREROUTING)
    packet.function("f", 1)
    tunnels = [step for step in one_story(packet).steps if isinstance(step, TunnelStep)]
    assert tunnels == [TunnelStep(1, 2), TunnelStep(4, 5, removed=True)]
