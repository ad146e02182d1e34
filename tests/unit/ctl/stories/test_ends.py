# SPDX-License-Identifier: GPL-2.0
"""The answer of a story, and the one to blame."""

from __future__ import annotations

import pytest

from ipttctl.events.records import EventRecord
from ipttctl.stories.assemble import PATIENCE, StoryAssembler
from ipttctl.stories.model import EndKind, Story, is_drop
from ipttproto import EventFlag, Kind, Verdict
from tests.unit.ctl.stories.packets import (
    INPUT,
    POSTROUTING,
    PREROUTING,
    Traveller,
    one_story,
    records,
    to_docker,
)


def at_input() -> Traveller:
    """A packet that came to this host."""
    packet = Traveller()
    packet.received("eth0")
    packet.now(pf=2, hook=INPUT)
    return packet


def blamed(story: Story) -> EventRecord:
    """The event of the one to blame."""
    assert story.end.blame is not None
    return story.plot.record(story.end.blame)


def quiet(packet: Traveller) -> Story:
    """The story of a packet of which nothing more was heard."""
    assembler = StoryAssembler()
    assembler.add(records(packet.events))
    [story] = assembler.due(packet.time + PATIENCE)
    return story


def test_a_legacy_rule() -> None:
    story = one_story(to_docker())
    assert story.end.kind is EndKind.RULE
    assert (blamed(story).chain, blamed(story).rulenum) == (b"DOCKER-USER", 1)
    assert is_drop(story)
    assert story.times[story.end.at] == story.times[-1]


def test_a_rule_of_nftables_in_each_way_that_kernels_tell_it() -> None:
    for freed_inside in (False, True):
        packet = at_input()
        packet.nft(Kind.CHAIN_RULE, "input", 1, Verdict.CONTINUE)
        packet.nft(Kind.CHAIN_RULE, "input", 2, Verdict.DROP)
        if freed_inside:
            packet.dropped(6, "nft_do_chain", "nf_tables")
        packet.nft(Kind.CHAIN_EXIT, "input", verdict=Verdict.DROP)
        verdict = Verdict.STOLEN if freed_inside else Verdict.DROP
        data = 1 if freed_inside else 0
        packet.function("nft_do_chain_inet", 1, verdict=verdict, verdict_data=data)
        packet.leave(verdict, verdict_data=data)
        if not freed_inside:
            packet.dropped(6, "nf_hook_slow")
        story = one_story(packet)
        assert story.end.kind is EndKind.RULE
        assert blamed(story).rule_handle == 12


def test_the_policy_of_a_chain() -> None:
    packet = at_input()
    packet.nft(Kind.CHAIN_RULE, "input", 1, Verdict.CONTINUE)
    packet.nft(Kind.CHAIN_POLICY, "input", verdict=Verdict.DROP)
    packet.nft(Kind.CHAIN_EXIT, "input", verdict=Verdict.DROP)
    packet.function("nft_do_chain_inet", 1, verdict=Verdict.DROP)
    packet.leave(Verdict.DROP)
    story = one_story(packet)
    assert (story.end.kind, blamed(story).kind) == (EndKind.RULE, Kind.CHAIN_POLICY)


def test_a_function_is_not_a_rule_that_came_before_it() -> None:
    packet = at_input()
    packet.nft(Kind.CHAIN_RULE, "input", 1)
    packet.nft(Kind.CHAIN_EXIT, "input")
    packet.function("nft_do_chain_inet", 1)
    packet.function("bpf_program", 2, verdict=Verdict.DROP)
    packet.leave(Verdict.DROP)
    packet.dropped(6, "nf_hook_slow")
    story = one_story(packet)
    assert (story.end.kind, blamed(story).chain) == (EndKind.FUNCTION, b"bpf_program")


def test_the_kernel() -> None:
    packet = at_input()
    packet.function("f", 1)
    packet.leave()
    packet.dropped(3, "udp_queue_rcv_one_skb")
    story = one_story(packet)
    assert (story.end.kind, story.end.blame) == (EndKind.KERNEL, None)


def test_a_socket_that_has_no_room() -> None:
    packet = at_input()
    packet.socket()
    packet.dropped(7, "sock_queue_rcv_skb")
    story = one_story(packet)
    assert story.end.kind is EndKind.KERNEL
    assert story.end.socket == 1


def test_a_bridge_that_hands_packets_to_ip() -> None:
    """Its function has stolen the packet, which IP dropped meanwhile."""
    packet = Traveller(pf=7, hook=PREROUTING, in_name=b"br0")
    packet.function("ebt_in_hook", 1)
    packet.legacy(Kind.RULE, "raw", "PREROUTING", 5, pf=2)
    packet.legacy(Kind.EXIT, "raw", "PREROUTING", pf=2, verdict=0)
    packet.function("iptable_raw_hook", 1, pf=2, verdict=Verdict.DROP)
    packet.leave(Verdict.DROP, pf=2)
    packet.dropped(6, "nf_hook_slow")
    packet.function("br_nf_pre_routing", 2, verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN)
    story = one_story(packet)
    assert (story.end.kind, blamed(story).rulenum) == (EndKind.RULE, 5)


def test_left_by_a_device() -> None:
    packet = Traveller(pf=2, hook=POSTROUTING, out_name=b"eth0")
    packet.function("f", 1)
    packet.leave()
    packet.sent("eth0")
    packet.freed()
    story = one_story(packet)
    assert story.end.kind is EndKind.LEFT
    assert not is_drop(story)
    assert story.end.device is not None
    assert story.plot.record(story.end.device).out_name == b"eth0"


def test_a_copy_that_is_dropped_counts() -> None:
    packet = Traveller(1, pf=2, hook=POSTROUTING, out_name=b"eth0")
    packet.function("f", 1)
    packet.sent("eth0")
    packet.freed()
    clone = Traveller(2, packet.time - 5000)
    clone.copied(1)
    clone.dropped(3, "packet_rcv")
    assert not is_drop(one_story(packet, clone))
    copy = Traveller(2, packet.time - 5000)
    copy.copied(1)
    copy.received("eth1")
    copy.dropped(3, "f")
    assert is_drop(one_story(packet, copy))


def test_used_up_by_the_kernel() -> None:
    packet = at_input()
    packet.function("f", 1)
    packet.leave()
    packet.freed()
    assert one_story(packet).end.kind is EndKind.CONSUMED


def test_lost() -> None:
    packet = at_input()
    packet.add(Kind.JOURNEY_LOST)
    assert one_story(packet).end.kind is EndKind.LOST


def test_a_queue() -> None:
    packet = at_input()
    packet.function("nft_do_chain_inet", 1, verdict=Verdict.QUEUE, verdict_data=3)
    packet.leave(Verdict.QUEUE, verdict_data=3)
    story = quiet(packet)
    assert (story.end.kind, blamed(story).verdict_data) == (EndKind.QUEUED, 3)


def test_the_end_of_the_stream_is_not_that_of_a_queue() -> None:
    packet = at_input()
    packet.function("nft_do_chain_inet", 1, verdict=Verdict.QUEUE, verdict_data=3)
    packet.leave(Verdict.QUEUE, verdict_data=3)
    assert one_story(packet).end.kind is EndKind.QUEUED


def fragment(module: str | None, *, waits: bool = True) -> Traveller:
    """A fragment that came in, and the module that took it at PREROUTING, if any."""
    packet = Traveller(flags=EventFlag.FRAGMENT)
    packet.received("eth0")
    packet.now(pf=2, hook=PREROUTING)
    if waits:
        packet.waits(99)
    if module is not None:
        packet.function("defrag", 1, module, verdict=Verdict.STOLEN)
        packet.leave(Verdict.STOLEN)
    return packet


@pytest.mark.parametrize("module", [None, "nf_defrag_ipv4", "nf_defrag_ipv6"])
@pytest.mark.parametrize(
    ("freed_with_whole", "reason"),
    [
        (None, 0),
        ("skb_release_data", 1),
        ("kfree_skb_list_reason", 1),
        # the number since 6.2 of the reason that says nothing
        ("kfree_skb_list_reason", 2),
    ],
)
def test_fragments_that_are_put_together(
    module: str | None, freed_with_whole: str | None, reason: int
) -> None:
    packet = fragment(module)
    if freed_with_whole:
        # the kernel reports that as a drop
        packet.dropped(reason, freed_with_whole)
    else:
        packet.freed()
    story = one_story(packet)
    assert story.end.kind is EndKind.JOINED
    assert not is_drop(story)


def test_fragments_that_are_not() -> None:
    late = fragment("nf_defrag_ipv4")
    late.dropped(77, "ip_expire")
    assert one_story(late).end.kind is EndKind.KERNEL
    queued = fragment(None)
    queued.dropped(4, "kfree_skb_list_reason")
    assert one_story(queued).end.kind is EndKind.KERNEL
    taken = fragment("nf_synproxy_core", waits=False)
    taken.freed()
    assert one_story(taken).end.kind is EndKind.KEPT
    gone = fragment(None, waits=False)
    gone.sent("eth1")
    gone.freed()
    assert one_story(gone).end.kind is EndKind.LEFT
    at_this_host = fragment(None, waits=False)
    at_this_host.now(pf=2, hook=INPUT)
    at_this_host.function("f", 1)
    at_this_host.freed()
    assert one_story(at_this_host).end.kind is EndKind.CONSUMED
    whole = fragment(None)
    whole.whole(99)
    whole.now(pf=2, hook=INPUT)
    whole.function("f", 1)
    whole.freed()
    assert one_story(whole).end.kind is EndKind.CONSUMED


def test_a_function_that_keeps_packets() -> None:
    packet = at_input()
    packet.function("f", 1)
    packet.function("ipv4_synproxy_hook", 2, verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN)
    for story in (quiet(packet), _freed(packet)):
        assert (story.end.kind, blamed(story).chain) == (EndKind.KEPT, b"ipv4_synproxy_hook")


def _freed(packet: Traveller) -> Story:
    packet.freed()
    return one_story(packet)


def test_a_queue_that_a_packet_came_back_from_is_no_end() -> None:
    packet = at_input()
    packet.function("nft_do_chain_inet", 1, verdict=Verdict.QUEUE, verdict_data=3)
    packet.leave(Verdict.QUEUE, verdict_data=3)
    packet.socket()
    packet.freed()
    assert one_story(packet).end.kind is EndKind.DELIVERED


def test_an_icmp_message_of_which_sockets_got_copies() -> None:
    ends = {"icmp_rcv": EndKind.CONSUMED, "ping_rcv": EndKind.CONSUMED, "udp_rcv": EndKind.KERNEL}
    for function, kind in ends.items():
        packet = at_input()
        packet.leave()
        copy = Traveller(2, packet.time)
        copy.copied(packet.number)
        copy.socket()
        copy.freed()
        packet.time = copy.time
        packet.dropped(3, function)
        story = one_story(packet, copy)
        assert story.branches[0].end.kind is EndKind.DELIVERED
        assert story.end.kind is kind
        assert is_drop(story) == (kind is EndKind.KERNEL)


@pytest.mark.parametrize(
    ("function", "reason", "flags"),
    [
        # an ACK behind a FIN
        ("tcp_rcv_state_process", 1, EventFlag.UNSAID),
        # the FIN to a connection that no process has
        ("sk_stream_kill_queues", 1, EventFlag.UNSAID),
        ("sk_stream_kill_queues", 76, EventFlag(0)),
    ],
)
def test_what_a_connection_used_was_delivered(function: str, reason: int, flags: EventFlag) -> None:
    packet = at_input()
    packet.leave()
    packet.socket()
    packet.dropped(reason, function, flags=flags)
    story = one_story(packet)
    assert story.end.kind is EndKind.DELIVERED
    assert not is_drop(story)
    assert story.times[story.end.at] == packet.time


@pytest.mark.parametrize(
    ("function", "flags", "kind"),
    [
        ("tcp_v4_rcv", EventFlag.UNSAID, EndKind.CONSUMED),
        ("tcp_v6_rcv", EventFlag.UNSAID, EndKind.CONSUMED),
        ("icmpv6_rcv", EventFlag.UNSAID, EndKind.CONSUMED),
        # there is a reason, as no socket or a checksum
        ("tcp_v4_rcv", EventFlag(0), EndKind.KERNEL),
        ("icmpv6_rcv", EventFlag(0), EndKind.KERNEL),
        # the header is not whole
        ("tcp_v4_rcv", EventFlag.UNSAID | EventFlag.TRUNCATED, EndKind.KERNEL),
        ("ip_rcv_finish_core", EventFlag.UNSAID, EndKind.KERNEL),
        # no connection: a process would have had what it brought
        ("tcp_rcv_state_process", EventFlag.UNSAID, EndKind.KERNEL),
    ],
)
def test_what_was_handled_without_a_socket_is_no_drop(
    function: str, flags: EventFlag, kind: EndKind
) -> None:
    packet = at_input()
    # no event of a drop tells headers
    packet.leave(flags=flags & EventFlag.TRUNCATED)
    packet.dropped(2, function, flags=flags & EventFlag.UNSAID)
    assert one_story(packet).end.kind is kind


def test_a_socket_drops_what_it_has_a_reason_for() -> None:
    for function, flags in (
        ("tcp_rcv_state_process", EventFlag(0)),
        ("tcp_v4_rcv", EventFlag.UNSAID),
        ("inet_sock_destruct", EventFlag.UNSAID),
    ):
        packet = at_input()
        packet.leave()
        packet.socket()
        packet.dropped(2, function, flags=flags)
        assert one_story(packet).end.kind is EndKind.KERNEL


@pytest.mark.parametrize("full", [True, False])
def test_a_listening_socket_whose_queue_is_full_makes_no_connection(full: bool) -> None:
    packet = at_input()
    packet.leave()
    packet.socket(flags=EventFlag.QUEUE_FULL if full else EventFlag(0))
    packet.freed()
    assert one_story(packet).end.kind is (EndKind.KERNEL if full else EndKind.DELIVERED)
