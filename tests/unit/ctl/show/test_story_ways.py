# SPDX-License-Identifier: GPL-2.0
"""Words for ways past functions that hand packets on, queues, and parts that are put together."""

from __future__ import annotations

from typing import Any

import pytest

from ipttctl.show.story_json import story_object
from ipttctl.show.story_text import StoryText
from ipttctl.show.told_story import told_lines
from ipttctl.stories.model import EndKind, Story
from ipttproto import EventFlag, Kind, Verdict
from tests.unit.ctl.stories.packets import (
    FORWARD,
    INPUT,
    POSTROUTING,
    PREROUTING,
    Traveller,
    one_story,
    told,
)


def show(story: Story, *, verbose: bool = False) -> list[str]:
    """The lines, with single spaces."""
    lines = StoryText(1000, verbose=verbose).lines([story])
    return [" ".join(str(line).split()) for line in lines]


def flow() -> Story:
    """A packet that a flow table sends on."""
    packet = Traveller()
    packet.received("r1")
    packet.sent("r2")
    packet.now(pf=5, hook=0)
    packet.function("nf_flow_offload_ip_hook", 1, "nf_flow_table", verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN)
    packet.freed()
    return one_story(packet)


def test_a_function_that_hands_packets_on() -> None:
    lines = show(flow())
    assert lines[1] == "netdev INGRESS nf_flow_offload_ip_hook (nf_flow_table): handed it on"
    assert lines[-1].startswith("left by r2 as 192.0.2.7:51324, ")


def test_br_netfilter_goes_without_saying() -> None:
    packet = Traveller(pf=7, hook=FORWARD, in_name=b"p1")
    packet.function("f", 1, pf=2)
    packet.leave(pf=2)
    packet.sent("p2")
    packet.function("br_nf_forward", 1, "br_netfilter", pf=7, verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN, pf=7)
    packet.freed()
    story = one_story(packet)
    assert not [line for line in show(story) if "br_nf" in line]
    assert "br_nf_forward (br_netfilter): handed it on" in show(story, verbose=True)


@pytest.mark.parametrize("copied", [False, True])
def test_what_a_function_took_is_gone(copied: bool) -> None:
    packet = Traveller()
    packet.received("eth0")
    packet.now(pf=2, hook=INPUT)
    copy = Traveller(2, packet.time)
    copy.copied(1)
    copy.sent("eth1")
    copy.freed()
    packet.function("ip_vs_in_hook", 1, "ip_vs", verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN)
    packet.freed()
    story = one_story(packet, *([copy] if copied else []))
    end = "taken by ip_vs_in_hook (ip_vs) at INPUT"
    end += ", its copies or parts went on" if copied else ""
    assert show(story)[-1].startswith(f"{end}, ")


@pytest.mark.parametrize("function", [None, "skb_release_data"])
def test_a_packet_that_is_merged(function: str | None) -> None:
    packet = Traveller(pf=2)
    packet.sent("eth0")
    packet.merged(7)
    if function is None:
        packet.freed()
    else:
        packet.dropped(2, function)
    story = one_story(packet)
    assert story.end.kind is EndKind.JOINED
    assert show(story)[-1].startswith("merged into another packet (GRO) behind eth0, ")
    assert story_object(story)["end"]["joined"] == 7


def test_a_packet_that_gro_does_not_take() -> None:
    packet = Traveller(pf=2)
    packet.sent("eth0")
    packet.merged(0)
    packet.received("eth1")
    packet.socket()
    packet.freed()
    story = one_story(packet)
    assert story.end.kind is EndKind.DELIVERED
    assert story_object(story)["end"]["joined"] is None


@pytest.mark.parametrize(
    ("waits", "function", "words"),
    [
        (True, None, "fragments"),
        (True, "skb_release_data", "fragments"),
        (False, "skb_release_data", "packets"),
    ],
)
def test_parts_that_are_put_together(waits: bool, function: str | None, words: str) -> None:
    packet = Traveller(pf=2)
    packet.received("eth0", pf=2)
    if waits:
        packet.waits(99)
    if function is None:
        packet.freed()
    else:
        packet.dropped(2, function)
    story = one_story(packet)
    expected = f"put together with other {words} after it came in by eth0, "
    assert show(story)[-1].startswith(expected)
    assert story_object(story)["end"]["kind"] == "joined"
    assert story_object(story)["end"]["dropped"] is False


def test_a_copy_says_that_it_is_a_fragment() -> None:
    original = Traveller(1)
    original.received("eth0")
    original.freed()
    part = Traveller(2, original.time - 1500)
    part.copied(1, saddr=bytes(16), daddr=bytes(16), ethertype=0, sport=0, dport=0)
    part.sent("eth1", flags=EventFlag.FRAGMENT, pf=2, sport=0, dport=0)
    part.freed()
    [branch] = one_story(original, part).branches
    assert "  tcp 192.0.2.7 > 203.0.113.5 fragment" in str(StoryText(200).lines([branch])[0])
    headers = story_object(branch)["headers"]
    assert (headers["fragment"], headers["source_port"]) == (True, None)


def test_what_the_program_of_a_queue_changed() -> None:
    packet = Traveller(pf=2, hook=FORWARD, in_name=b"eth0", out_name=b"eth1")
    packet.function("nft_do_chain_ipv4", 1, verdict=Verdict.QUEUE, verdict_data=5)
    packet.leave(Verdict.QUEUE, verdict_data=5)
    packet.legacy(Kind.POLICY, "filter", "FORWARD", 1, mark=77)
    packet.legacy(Kind.EXIT, "filter", "FORWARD", verdict=1, mark=77)
    assert "FORWARD in queue 5 or on its way here: mark 0x0 > 0x4d" in show(one_story(packet))


def into_queue(**members: Any) -> Traveller:
    """A packet that goes into a queue at FORWARD."""
    packet = Traveller(pf=2, hook=FORWARD, in_name=b"eth0", out_name=b"eth1", **members)
    packet.function("nft_do_chain_ipv4", 1, verdict=Verdict.QUEUE, verdict_data=5)
    packet.leave(Verdict.QUEUE, verdict_data=5)
    return packet


BEHIND = "FORWARD behind queue 5: rules are seen, other functions are not"


def unseen(story: Story) -> list[bool]:
    """Whether functions of the hooks of a story are not seen, the same in all forms."""
    found = [one for one in story_object(story)["steps"] if one["step"] == "hook"]
    told_there = " ".join("".join(told_lines(story_object(story), "web1")).split())
    assert ("FORWARD behind the queue: " in told_there) == (BEHIND in show(story))
    assert (BEHIND in show(story)) == any(one["functions_unseen"] for one in found)
    return [one["functions_unseen"] for one in found]


def test_functions_behind_a_queue_are_said_not_to_be_seen() -> None:
    packet = into_queue()
    packet.now(hook=POSTROUTING)
    packet.function("f", 1)
    packet.leave()
    packet.sent("eth1")
    packet.freed()
    story = one_story(packet)
    assert unseen(story) == [True, False]
    assert BEHIND in show(story)


def test_rules_behind_a_queue_come_after_that() -> None:
    packet = into_queue()
    packet.nft(Kind.CHAIN_RULE, "behind", 2)
    packet.nft(Kind.CHAIN_EXIT, "behind")
    packet.freed()
    lines = show(one_story(packet))
    assert lines.index(BEHIND) < lines.index("nft inet fw behind 2 handle 12: accept")


def test_a_program_that_answers_before_the_packet_has_left_the_hook() -> None:
    packet = Traveller(pf=2, hook=FORWARD, in_name=b"eth0", out_name=b"eth1")
    packet.function("nft_do_chain_ipv4", 1, verdict=Verdict.QUEUE, verdict_data=5)
    packet.nft(Kind.CHAIN_RULE, "behind", 2)
    packet.nft(Kind.CHAIN_EXIT, "behind")
    packet.leave(Verdict.QUEUE, verdict_data=5)
    packet.freed()
    assert unseen(one_story(packet)) == [True]


def test_parts_that_were_made_for_a_queue_come_back_too() -> None:
    packet = into_queue()
    part = Traveller(2, packet.time - 1500, in_name=b"eth0", out_name=b"eth1")
    part.copied(1)
    part.time = packet.time + 1000
    part.sent("eth1")
    part.freed()
    packet.freed()
    assert unseen(one_story(packet, part)) == [True]


def test_a_packet_that_did_not_come_back_misses_nothing() -> None:
    waits, dropped, bypassed = into_queue(), into_queue(), Traveller(pf=2, hook=FORWARD)
    dropped.dropped(2, "nf_reinject")
    # nobody listens: the rest of the hook runs as ever
    bypassed.function("f", 1, verdict=Verdict.QUEUE, verdict_data=5)
    bypassed.function("g", 2)
    bypassed.leave()
    bypassed.socket()
    for packet in (waits, dropped, bypassed):
        assert unseen(one_story(packet)) == [False]


def test_a_packet_of_a_bridge_that_waits_in_a_queue_of_ip() -> None:
    packet = into_queue(physin_ifindex=3, physout_ifindex=4)
    packet.function("br_nf_forward", 1, "br_netfilter", pf=7, verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN, pf=7)
    assert not any(unseen(one_story(packet)))


def test_the_rules_of_a_function_that_changed_something_are_shown() -> None:
    """Even if they only went on; others are not."""
    [changed, same] = (told_with_mark(mark) for mark in (6, 0))
    assert "nft inet fw pre 1 handle 11: continue" in changed
    assert not [line for line in same if "handle" in line]


def told_with_mark(mark: int) -> list[str]:
    """The lines of a packet that a rule may have given a mark."""
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.function("f", 1)
    packet.nft(Kind.CHAIN_RULE, "pre", 1, Verdict.CONTINUE)
    packet.nft(Kind.CHAIN_POLICY, "pre")
    packet.nft(Kind.CHAIN_EXIT, "pre")
    packet.function("nft_do_chain_ipv4", 2, mark=mark)
    packet.leave(mark=mark)
    [story] = told(packet)
    return show(story)


def test_a_namespace_that_only_a_socket_names() -> None:
    packet = Traveller()
    packet.received("r1", pf=2, netns=7)
    packet.socket(pf=2, netns=8, netns_cookie=2)
    packet.freed()
    assert "namespace 8" in show(one_story(packet))
