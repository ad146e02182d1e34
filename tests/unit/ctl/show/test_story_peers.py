# SPDX-License-Identifier: GPL-2.0
"""The other ends of veth devices in stories of text."""

from __future__ import annotations

from ipttctl.show.story_text import StoryText
from ipttctl.show.story_words import StorySources
from ipttctl.stories.assemble import StoryAssembler
from ipttctl.system.peers import Device, Peer
from tests.unit.ctl.show.test_story_text import show
from tests.unit.ctl.stories.packets import (
    FORWARD,
    OUTPUT,
    PREROUTING,
    START,
    Traveller,
    one_story,
    records,
)


def peer_of(device: Device, moment: int) -> Peer | None:
    """The pairs veth0 - eth0 of namespace 8, and veth1 - eth1 of namespace 9."""
    assert moment >= START
    ends = {
        (1, b"veth0"): (8, b"eth0"),
        (8, b"eth0"): (1, b"veth0"),
        (1, b"veth1"): (9, b"eth\x1b1"),
    }
    cookie, name = ends.get((device.netns_cookie, device.name), (0, b""))
    index = {b"veth0": 7, b"eth0": 2, b"eth\x1b1": 2}.get(name, 0)
    if not index:
        return None
    named = "we\nb" if cookie == 8 else None
    return Peer(name, index, 4026532300 + cookie, cookie, named, elsewhere=True)


VETHS = StorySources(peer=peer_of)


def test_a_packet_that_came_in_and_left_by_veth_devices() -> None:
    packet = Traveller(netns_cookie=1)
    packet.received("veth0", in_ifindex=7)
    packet.now(pf=2, hook=FORWARD, out_name=b"veth1", out_ifindex=8)
    packet.function("f", 1)
    packet.leave()
    packet.sent("veth1", out_ifindex=8)
    packet.freed()
    lines = show(one_story(packet), sources=VETHS)
    assert lines[0].endswith(r"  in by veth0 (peer of eth0, namespace we\nb)")
    assert lines[-1] == (
        r"  left by veth1 (peer of eth\x1b1, namespace 4026532309) as 192.0.2.7:51324,"
        " 4 us after it came in"
    )
    for width in (60, 80):
        assert max(map(len, show(one_story(packet), sources=VETHS, width=width))) <= width


def test_a_packet_that_came_to_its_first_hook_by_a_veth_device() -> None:
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"veth0", in_ifindex=7, netns_cookie=1)
    packet.function("f", 1)
    packet.leave()
    packet.freed()
    [heading, *_] = show(one_story(packet), sources=VETHS)
    assert heading.endswith(r"  in by veth0 (peer of eth0, namespace we\nb)")


def between(index: int) -> list[str]:
    """The lines of the devices of a packet that one end sent, and the device it came in by."""
    packet = Traveller(pf=2, hook=OUTPUT, netns_cookie=1)
    packet.function("f", 1)
    packet.leave()
    packet.sent("veth0", out_ifindex=7)
    packet.now(netns=4026532308, netns_cookie=8)
    packet.received("eth0", in_ifindex=index)
    packet.freed()
    return show(one_story(packet), sources=VETHS)[1:3]


def test_the_step_that_follows_names_the_other_end() -> None:
    assert between(2) == [
        "  device                  sent by veth0",
        "  device                  in by eth0, namespace 4026532308",
    ]


def test_a_step_that_follows_may_name_another_device() -> None:
    assert between(3) == [
        r"  device                  sent by veth0 (peer of eth0, namespace we\nb)",
        "  device                  in by eth0, namespace 4026532308",
    ]


def test_a_packet_that_is_still_with_a_veth_device() -> None:
    packet = Traveller(pf=2, hook=OUTPUT, netns_cookie=1)
    packet.function("f", 1)
    packet.leave()
    packet.sent("veth0", out_ifindex=7)
    assembler = StoryAssembler()
    stories = [*assembler.add(records(packet.events)), *assembler.due(packet.time + 10_000_000_000)]
    assert show(*stories, sources=VETHS)[-1].startswith(
        r"  still open with veth0 (peer of eth0, namespace we\nb), which sends it"
    )


def test_peers_that_are_known_otherwise_by_now() -> None:
    known: list[Peer | None] = [None]
    text = StoryText(120, sources=StorySources(peer=lambda *_: known[0]))
    packet = Traveller()
    packet.received("veth0")
    packet.freed()
    story = one_story(packet)
    assert "in by veth0" in text.lines([story])[0]
    assert "peer" not in text.lines([story])[0]
    known[0] = Peer(b"twin", 3, 1, 1, None, elsewhere=False)
    assert text.lines([story])[0].endswith("in by veth0 (peer of twin)")
