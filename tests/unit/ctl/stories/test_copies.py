# SPDX-License-Identifier: GPL-2.0
"""Copies and parts that are told, and packets that end as their copies begin."""

from __future__ import annotations

import pytest

from ipttctl.show.story_text import StoryText
from ipttctl.stories.model import EndKind, Story, is_drop
from ipttproto import Verdict
from tests.unit.ctl.stories.packets import INPUT, MS, POSTROUTING, Traveller, one_story


def sent_on() -> Traveller:
    """A packet that routing has sent on."""
    packet = Traveller(1, pf=2, hook=POSTROUTING, out_name=b"eth0")
    packet.function("f", 1)
    packet.leave()
    return packet


def cut(function: str, module: str = "") -> Story:
    """A packet that was cut into fragments, which a function drops."""
    packet = sent_on()
    fragments = []
    for number in (2, 3):
        fragment = Traveller(number, packet.time + number)
        fragment.copied(1)
        fragment.dropped(6, function, module)
        fragments.append(fragment)
    packet.time += 1 * MS
    packet.freed()
    return one_story(packet, *fragments)


@pytest.mark.parametrize(
    "function", ["tcf_action_exec", "__dev_queue_xmit", "neigh_flush_dev", "kfree_skb_list_reason"]
)
def test_parts_that_are_dropped_before_a_device_sends_them(function: str) -> None:
    story = cut(function)
    assert is_drop(story)
    assert [branch.number for branch in story.shown_branches()] == [2, 3]
    text = "\n".join(map(str, StoryText(120).lines([story])))
    assert f"reason 6 in {function}" in text
    assert "used up after POSTROUTING, its copies or parts went on" in text


@pytest.mark.parametrize(
    "function",
    [
        "packet_rcv",
        "tpacket_rcv.part.0",
        "packet_rcv_spkt",
        "packet_rcv_fanout",
        "skb_queue_purge_reason",
        "inet_sock_destruct",
    ],
)
def test_clones_that_packet_sockets_drop_are_folded(function: str) -> None:
    story = cut(function)
    assert not is_drop(story)
    assert story.shown_branches() == ()


def test_a_clone_of_which_a_part_is_dropped_is_told() -> None:
    packet = sent_on()
    copy = Traveller(2, packet.time)
    copy.copied(1)
    copy.freed()
    part = Traveller(3, copy.time + 1)
    part.copied(2)
    part.dropped(6, "__dev_queue_xmit")
    packet.time += 1 * MS
    packet.sent("eth0")
    packet.freed()
    assert is_drop(one_story(packet, copy, part))


def replaced(function: str, reason: int, *, copied: bool = True, queued: bool = False) -> Story:
    """A packet that a function frees, after it was copied, if it was."""
    packet = Traveller(1, pf=2, hook=INPUT, in_name=b"eth0")
    if queued:
        packet.function("nft_do_chain_inet", 1, verdict=Verdict.QUEUE, verdict_data=3)
        packet.leave(Verdict.QUEUE, verdict_data=3)
    else:
        packet.function("f", 1)
        packet.leave()
    copy = Traveller(2, packet.time + 1 * MS)
    copy.copied(1)
    copy.socket()
    copy.freed()
    packet.time = copy.time - 2500
    packet.dropped(reason, function)
    return one_story(packet, *([copy] if copied else []))


@pytest.mark.parametrize(
    "function", ["nfqnl_enqueue_packet", "nfqnl_mangle", "nfqnl_recv_verdict", "xfrm_output_gso"]
)
@pytest.mark.parametrize("reason", [1, 2])
def test_originals_that_copies_stand_for_are_not_dropped(function: str, reason: int) -> None:
    story = replaced(function, reason, queued=function.startswith("nfqnl"))
    assert not is_drop(story)
    assert story.end.kind is EndKind.CONSUMED
    assert "its copies or parts went on" in str(StoryText(120).lines([story])[-1])


def test_other_drops_of_packets_with_copies_are_drops() -> None:
    assert replaced("nfqnl_recv_verdict", 1, copied=False).end.kind is EndKind.KERNEL
    assert replaced("nfqnl_recv_verdict", 8).end.kind is EndKind.KERNEL
    assert replaced("nfqnl_reinject", 1).end.kind is EndKind.KERNEL
    # a tap got its copy long before
    packet = Traveller(1)
    packet.received("eth0")
    clone = Traveller(2, packet.time)
    clone.copied(1)
    packet.now(pf=2, hook=INPUT)
    packet.time = clone.time
    packet.function("f", 1)
    packet.leave()
    packet.dropped(1, "xfrm_output_gso")
    clone.time = packet.time
    clone.freed()
    assert one_story(packet, clone).end.kind is EndKind.KERNEL
