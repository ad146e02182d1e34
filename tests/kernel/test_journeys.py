# SPDX-License-Identifier: GPL-2.0
"""Journeys: packets under their numbers, from hook to hook and from namespace to namespace.

left eth0 10.77.1.2 --- r1 10.77.1.1 router r2 10.77.2.1 --- eth0 10.77.2.2 right
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from ipttctl.events.records import decode_events
from ipttctl.hooks.chain import ChainHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.stories.model import EndKind, Story
from ipttctl.system import netns
from ipttproto import Kind
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import running
from tests.kernel.support.journeys import Journey, following, reason, told
from tests.kernel.support.kernel import COMMAND_TIMEOUT, run, wait_for
from tests.kernel.support.network import (
    Namespace,
    Network,
    event,
    ip_batch,
    namespace,
    network,
)

SCHEMA: Final = Path(__file__).parents[2] / "docs" / "story.schema.json"

COUNTING = """
table ip f {
    chain in { type filter hook input priority 0; counter; }
    chain out { type filter hook output priority 0; counter; }
    chain post { type filter hook postrouting priority 0; counter; }
}
"""
ROUTER = """
table ip t {
    chain pre { type nat hook prerouting priority dstnat; udp dport 9 dnat to 10.77.2.2:10; }
    chain forward { type filter hook forward priority filter; udp dport 11 drop; counter; }
    chain post {
        type nat hook postrouting priority srcnat;
        oifname "r2" meta l4proto udp masquerade;
    }
}
"""


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


@pytest.fixture
def three() -> Iterator[Network]:
    with network("j") as made:
        for where in (made.left, made.right):
            nft(where, COUNTING)
        nft(made.router, ROUTER)
        # the neighbours are known from here on
        made.left.ping("10.77.2.2", "-c", "1")
        yield made


def send(address: str, port: int, size: int = 1) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        # without the flag that forbids fragments
        sender.setsockopt(socket.IPPROTO_IP, 10, 0)
        sender.sendto(b"x" * size, (address, port))


def receive(port: int, ready: Any, done: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", port))
        ready.set()
        # a trace begins and ends meanwhile
        done.wait(4 * COMMAND_TIMEOUT)


def answer(port: int, ready: Any) -> None:
    """Answer one packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", port))
        sock.settimeout(60)
        ready.set()
        _, client = sock.recvfrom(100)
        sock.sendto(b"yes", client)


def ask(address: str, port: int) -> None:
    """Send a packet, and wait for its answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.sendto(b"x", (address, port))
        assert sock.recv(100) == b"yes"


#: the function is another one in 7.3
NO_SOCKET = {("NO_SOCKET", "__udp4_lib_rcv"), ("NO_SOCKET", "udp_rcv")}

FORWARDED = ["output", "postrouting", "to eth0", "from r1", "prerouting", "forward"]
ARRIVED = [*FORWARDED, "postrouting", "to r2", "from eth0", "prerouting", "input"]


def test_a_packet_is_followed_through_namespaces_and_nat(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    ready, done = event(), event()
    process = three.right.start(receive, 10, ready, done)
    assert ready.wait(60)
    with following(controller, make_program, "udp port 9 or udp port 11 or udp port 12") as journey:
        for address, port in (("10.77.1.1", 9), ("10.77.2.2", 11), ("10.77.2.2", 12)):
            three.left.call(send, address, port)
    done.set()
    process.join()
    delivered, dropped, unwanted = journey.stories
    # the filter does not know it by its new addresses
    assert told(delivered) == [*ARRIVED, "socket", "delivered"]
    at_socket = delivered.record(delivered.end.at)
    assert (at_socket.kind, at_socket.dport, at_socket.verdict_data) == (Kind.JOURNEY_SOCKET, 10, 0)
    assert at_socket.rule_handle
    assert told(dropped) == [*FORWARDED, "dropped_by_rule"]
    assert dropped.end.blame is not None
    assert dropped.record(dropped.end.blame).chain.rstrip(b"\0") == b"forward"
    assert told(unwanted) == [*ARRIVED, "dropped_by_kernel"]
    assert reason(unwanted) in NO_SOCKET


@pytest.mark.parametrize("both_ways", [True, False])
def test_answers_are_followed_where_that_is_wanted(
    three: Network, controller: Controller, make_program: MakeProgram, *, both_ways: bool
) -> None:
    """Through NAT of both ends, under addresses that the filter does not know."""
    ready = event()
    server = three.right.start(answer, 10, ready)
    assert ready.wait(60)
    wanted = "udp dst port 9"
    with following(controller, make_program, wanted, both_ways=both_ways) as journey:
        three.left.call(ask, "10.77.1.1", 9)
        # of another connection between the same hosts
        three.right.call(send, "10.77.2.1", 9999)
    server.join()
    asked, *answers = journey.stories
    assert told(asked) == [*ARRIVED, "socket", "delivered"]
    first = asked.record(0)
    assert first.comm.rstrip(b"\0").startswith(b"python")
    assert (first.uid, bool(first.pid_start), bool(first.cgroup)) == (0, True, True)
    if not both_ways:
        assert not answers
        return
    [back] = answers
    ways = ["output", "postrouting", "to eth0", "from r2", "prerouting", "forward", "postrouting"]
    assert told(back) == [*ways, "to r1", "from eth0", "prerouting", "input", "socket", "delivered"]
    assert (back.record(0).sport, back.record(back.end.at).sport) == (10, 9)


def test_connections_have_ids(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """As conntrack shows them, the same for the packets of both directions."""
    ready = event()
    server = three.right.start(answer, 10, ready)
    assert ready.wait(60)
    with following(controller, make_program, "udp dst port 9", both_ways=True) as journey:
        three.left.call(ask, "10.77.1.1", 9)
        command = ("conntrack", "-L", "-o", "id", "-p", "udp", "--orig-port-dst", "9")
        listed = run("ip", "netns", "exec", three.router.name, *command)
    server.join()
    router = {one.netns_cookie for one in journey.events if one.in_name.startswith(b"r1")}
    of_router = [one for one in journey.events if one.netns_cookie in router and one.ct_state]
    assert len({one.ct_state for one in of_router}) > 1
    assert {str(one.ct_id) for one in of_router} == set(re.findall(r"id=(\d+)", listed))


def test_without_the_spine_it_is_followed_from_its_first_chain(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    with following(controller, make_program, "udp port 9", ChainHook()) as journey:
        three.left.call(send, "10.77.1.1", 9)
    [story] = journey.stories
    assert len({one.packet for one in journey.events}) == 1
    assert story.end.kind is EndKind.KERNEL
    assert [one.dport for one in journey.events if one.chain == b"in"]


def test_a_copy_is_a_branch(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    nft(
        three.router,
        "table ip c { chain pre { type filter hook prerouting priority 0; "
        "udp dport 12 dup to 10.77.2.2; }; }",
    )
    with following(controller, make_program, "udp port 12") as journey:
        three.left.call(send, "10.77.2.2", 12)
    [story] = journey.stories
    assert told(story) == [*ARRIVED, "dropped_by_kernel"]
    [copy] = story.shown_branches()
    assert copy.copy_of == story.number
    assert told(copy)[-4:] == ["from eth0", "prerouting", "input", "dropped_by_kernel"]


def make_tunnel(ends: Network) -> None:
    """Give left and right the addresses 10.5.0.1 and 10.5.0.2 at a tunnel between them."""
    for where, near, far in ((ends.left, "1", "2"), (ends.right, "2", "1")):
        ip_batch(
            where.name,
            f"tunnel add tun1 mode ipip local 10.77.{near}.2 remote 10.77.{far}.2",
            f"address add 10.5.0.{near}/24 dev tun1",
            "link set tun1 up",
        )


def test_a_tunnel(three: Network, controller: Controller, make_program: MakeProgram) -> None:
    make_tunnel(three)
    with following(controller, make_program, "udp port 24") as journey:
        three.left.call(send, "10.5.0.2", 24)
    [story] = journey.stories
    words = told(story)
    assert words[:4] == ["output", "postrouting", "to tun1", "packed"]
    assert "unpacked" in words, words
    assert words[-4:] == ["from tun1", "prerouting", "input", "dropped_by_kernel"]


def test_answers_to_a_packet_in_a_tunnel_are_not_all_that_is_in_it(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    make_tunnel(three)
    ready = event()
    server = three.right.start(answer, 24, ready)
    assert ready.wait(60)
    with following(controller, make_program, "udp dst port 24", both_ways=True) as journey:
        three.left.call(ask, "10.5.0.2", 24)
        # other connections in the tunnel
        three.left.call(send, "10.5.0.2", 25)
        three.right.call(send, "10.5.0.1", 25)
    server.join()
    asked, back = journey.stories
    assert told(asked)[-5:] == ["from tun1", "prerouting", "input", "socket", "delivered"]
    assert told(back)[-5:] == ["from tun1", "prerouting", "input", "socket", "delivered"]
    assert (back.record(0).sport, back.record(0).dport) == (24, asked.record(0).sport)


def test_an_error_about_a_packet_has_no_answers(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """Its connection is that of the packet, which nobody asked for."""
    with following(controller, make_program, "icmp", both_ways=True) as journey:
        for _ in range(2):
            three.left.call(send_again, "10.77.2.2", 12)
    assert len(journey.stories) == 2
    assert {story.record(0).protocol for story in journey.stories} == {socket.IPPROTO_ICMP}


def send_again(address: str, port: int) -> None:
    """Send packets of one connection; the next after something had time to come back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", 4000))
        sender.connect((address, port))
        sender.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sender.recv(1)


def test_an_answered_echo(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """Number 0 is one, and a ping the other way has it too."""
    wanted = "src 10.77.1.2 and icmp[icmptype] == icmp-echo"
    with following(controller, make_program, wanted, both_ways=True) as journey:
        three.left.ping("10.77.2.2", "-c", "1", "-e", "0")
        three.right.ping("10.77.1.2", "-c", "1", "-e", "0")
    kinds = [story.record(0).icmp_type for story in journey.stories]
    assert kinds == [8, 0]


#: devices on right's eth0, and what goes with each: commands for the router, its device's name
UPPER: Final = {
    "macvlan": ("link add up0 link eth0 type macvlan mode bridge", [], "r2"),
    "VLAN": (
        "link add up0 link eth0 type vlan id 9",
        [
            "link add r9 link r2 type vlan id 9",
            "link set r9 up",
            "route add 10.77.2.3/32 dev r9",
        ],
        "r9",
    ),
}


@pytest.mark.parametrize("kind", UPPER)
def test_a_device_takes_a_packet_into_another_namespace(
    three: Network, controller: Controller, make_program: MakeProgram, kind: str
) -> None:
    """At chains alone, so that only the devices show that; the drop is in that namespace."""
    upper, of_router, device = UPPER[kind]
    ip_batch(three.router.name, *of_router)
    with namespace("j-deep") as deep:
        ip_batch(three.right.name, upper, f"link set up0 netns {deep.name}")
        ip_batch(
            deep.name,
            "address add 10.77.2.3/24 dev up0",
            "link set up0 up",
            "route add default dev up0",
        )
        # neighbours are known from here on
        three.left.ping("10.77.2.3", check=False)
        three.router.ping("10.77.2.3", "-I", device, check=False)
        with following(controller, make_program, "udp port 12", ChainHook()) as journey:
            three.left.call(send, "10.77.2.3", 12)
        [story] = journey.stories
        words = ["to r2", "from eth0", "from up0", "dropped_by_kernel"]
        assert told(story)[-len(words) :] == words
        assert story.record(story.end.at).netns == deep.inode


def test_a_tag_in_the_frame_is_no_tunnel(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """A device that cannot insert tags sends packets whose protocol is that of the tag."""
    three.router.run("ethtool", "-K", "r2", "tx-vlan-hw-insert", "off")
    ip_batch(
        three.router.name,
        "link add r8 link r2 type vlan id 8",
        "link set r8 up",
        "route add 10.77.2.4/32 dev r8",
    )
    ip_batch(
        three.right.name,
        "link add r8 link eth0 type vlan id 8",
        "address add 10.77.2.4/24 dev r8",
        "link set r8 up",
    )
    three.left.ping("10.77.2.4", check=False)
    with following(controller, make_program, "udp port 12") as journey:
        three.left.call(send, "10.77.2.4", 12)
    [story] = journey.stories
    words = told(story)
    begin = words.index("to r8")
    assert words[begin : begin + 4] == ["to r8", "to r2", "from eth0", "from r8"]
    assert not {"packed", "unpacked"} & set(words)
    assert story.headers[-1].daddr[:4] == socket.inet_aton("10.77.2.4")


def test_a_device_takes_packets_of_others(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    ip_batch(three.router.name, f"link add r3 type veth peer name p3 netns {three.right.name}")
    ip_batch(
        three.right.name,
        "link add bond3 type bond mode active-backup",
        "link set p3 master bond3",
        "address add 10.77.3.2/24 dev bond3",
        "link set bond3 up",
    )
    ip_batch(three.router.name, "address add 10.77.3.1/24 dev r3", "link set r3 up")
    three.router.ping("10.77.3.2", "-c", "3")
    with following(controller, make_program, "udp port 12") as journey:
        three.left.call(send, "10.77.3.2", 12)
    [story] = journey.stories
    words = ["to r3", "from p3", "from bond3", "prerouting", "input", "dropped_by_kernel"]
    assert told(story)[-len(words) :] == words


def receive_all(port: int, size: int, ready: Any) -> None:
    """Accept a connection, and read so many bytes of it."""
    with socket.create_server(("", port)) as server:
        server.settimeout(60)
        ready.set()
        connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            while size:
                size -= len(connection.recv(size))


def send_all(address: str, port: int, size: int) -> None:
    with socket.create_connection((address, port), 60) as connection:
        connection.sendall(bytes(size))


def test_packets_that_gro_merges_do_not_leave(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    three.left.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
    three.router.run("ethtool", "-K", "r1", "gro", "on")
    ready = event()
    server = three.right.start(receive_all, 80, 100_000, ready)
    assert ready.wait(60)
    with following(controller, make_program, "tcp dst port 80") as journey:
        three.left.call(send_all, "10.77.2.2", 80, 100_000)
    server.join()
    merged = {one.packet: one for one in journey.events if one.kind == Kind.JOURNEY_JOINED}
    numbers = {one.packet for one in journey.events}
    assert merged
    assert {one.rule_handle for one in merged.values()} <= numbers - merged.keys()
    ends = {one.number: one.end.kind for story in journey.stories for one in tree(story)}
    # GRO may still refuse one
    assert EndKind.JOINED in {ends[number] for number in merged}
    assert EndKind.LEFT not in ends.values()


def tree(story: Story) -> Iterator[Story]:
    """A story, and those of its copies and parts."""
    yield story
    for branch in story.branches:
        yield from tree(branch)


def test_fragments_are_parts(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    with following(controller, make_program, "udp port 12 or (ip[6:2] & 0x1fff != 0)") as journey:
        three.left.call(send, "10.77.2.2", 12, 3000)
    parts = [part for story in journey.stories for part in tree(story)]
    assert len({part.number for part in parts}) == len(parts)
    assert {part.copy_of for part in parts if part.copy_of} <= {part.number for part in parts}
    # the whole is refused where it arrives
    assert {reason(part) for part in parts} & NO_SOCKET


def test_the_whole_of_fragments_is_another_packet(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """The router's conntrack makes it of the last fragment's sk_buff, within a hook."""
    with following(controller, make_program, "udp") as journey:
        three.left.call(send, "10.77.2.2", 12, 3000)
    by_time = sorted(journey.events, key=lambda event: event.time)
    # the router's conntrack is the first that this has, and knows the whole only
    knows = next(event for event in by_time if event.chain.startswith(b"ipv4_conntrack_in"))
    made = [e for e in by_time if e.packet == knows.packet and e.kind == Kind.JOURNEY_COPY]
    assert [event.skb for event in made] == [knows.skb]
    fragment = [e for e in by_time if e.skb == knows.skb and e.time < made[0].time][-1]
    assert fragment.kind == Kind.JOURNEY_FREED
    assert not [e for e in by_time if e.packet == fragment.packet and e.time > fragment.time]
    # the fragments name it, by a number that nothing else has
    [whole] = [e for e in by_time if e.packet == knows.packet and e.kind == Kind.JOURNEY_WHOLE]
    waiting = [e for e in by_time if e.rule_handle == whole.rule_handle and e is not whole]
    assert {e.kind for e in waiting} == {Kind.JOURNEY_WAITS}
    assert len({e.packet for e in waiting}) == len(waiting) == 3
    assert fragment.packet in {e.packet for e in waiting}
    parts = [part for story in journey.stories for part in tree(story)]
    ends = {part.number: part for part in parts if part.number in {e.packet for e in waiting}}
    assert {str(part.end.kind) for part in ends.values()} == {"joined"}
    named = [{one.number for one in part.named.values()} for part in ends.values()]
    assert len(named) == 3
    assert all(knows.packet in numbers for numbers in named)


@pytest.mark.parametrize(
    ("address", "function"), [("10.98.2.2", "ip_error"), ("10.99.9.9", "ip_error")]
)
def test_no_route(
    three: Network,
    controller: Controller,
    make_program: MakeProgram,
    address: str,
    function: str,
) -> None:
    ip_batch(three.router.name, "route add blackhole 10.98.0.0/16")
    with following(controller, make_program, "udp port 12") as journey:
        three.left.call(send, address, 12)
    [story] = journey.stories
    assert told(story)[-2:] == ["prerouting", "dropped_by_kernel"]
    assert reason(story)[1] == function


def test_limits_choose_for_all_links(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    with controller.events() as events:
        journey = Journey(controller, make_program(asm.returning(1)).fd)
        journey.follow("udp port 12", limits=Limits(sample=3))
        for _ in range(60):
            three.left.call(send, "10.77.2.2", 12)
        wait_for(lambda: controller.link(journey.link.id).stats.events, what="events")
        journey.end()
        records = [r for batch in events.drain() for r in decode_events(batch) if r.packet]
    packets: dict[int, set[int]] = {}
    for record in records:
        packets.setdefault(record.packet, set()).add(record.kind)
    assert 0 < len(packets) < 60
    # each of them whole: nothing of the others
    whole = {Kind.SPINE_EXIT, Kind.CHAIN_EXIT, Kind.JOURNEY_SENT, Kind.JOURNEY_DROPPED}
    assert all(whole <= kinds for kinds in packets.values())


def test_the_command_tells_stories(three: Network) -> None:
    with running("trace", "-c", "2", "udp port 9 or udp port 11") as trace:
        trace.wait_for_text("tracing: links")
        three.left.call(send, "10.77.1.1", 9)
        three.left.call(send, "10.77.2.2", 11)
        assert trace.process.wait(COMMAND_TIMEOUT) == 0
    told_now = " ".join(trace.out().split())
    assert "nft ip t pre 1 udp dport 9 dnat to 10.77.2.2:10 > 10.77.2.2:10" in told_now
    assert re.search(r"dropped: no socket \(NO_SOCKET in (__udp4_lib_rcv|udp_rcv)\)", told_now)
    assert 'dropped by nft ip t forward 1 "udp dport 11 drop"' in told_now


def test_stories_in_json_have_the_schema(three: Network) -> None:
    """Of a packet that is dropped, and of one that a socket takes whose holder is told."""
    ready, done = event(), event()
    receiver = three.right.start(receive, 10, ready, done)
    assert ready.wait(60)
    with running("trace", "-c", "2", "-o", "json", "udp port 9 or udp port 11") as trace:
        trace.wait_for_text("tracing: links")
        three.left.call(send, "10.77.2.2", 11)
        three.left.call(send, "10.77.1.1", 9)
        assert trace.process.wait(COMMAND_TIMEOUT) == 0
    done.set()
    receiver.join(60)
    schema = Draft202012Validator(json.loads(SCHEMA.read_text()))
    head, *stories = [json.loads(line) for line in trace.out().splitlines()]
    assert head["type"] == "stream"
    for one in stories:
        schema.validate(one)
    ends = {one["end"]["kind"]: one["end"] for one in stories}
    assert ends.keys() == {"dropped_by_rule", "delivered"}
    taken = ends["delivered"]["socket"]
    assert (taken["inode"] > 0, taken["uid"], taken["holders_complete"]) == (True, 0, True)
    assert [one["pid"] for one in taken["holders"]] == [receiver.pid]
    assert ends["delivered"]["headers"]["destination"] == "10.77.2.2"


def test_a_veth_device_is_told_with_its_peer(three: Network) -> None:
    """Of a packet that is first seen at the router, as if it came from elsewhere."""
    schema = Draft202012Validator(json.loads(SCHEMA.read_text()))
    expected = ("udp port 11", "--netns", three.router.name)
    with running("trace", "-c", "1", *expected) as trace:
        trace.wait_for_text("tracing: links")
        three.left.call(send, "10.77.2.2", 11)
        assert trace.process.wait(COMMAND_TIMEOUT) == 0
    told_now = " ".join(trace.out().split())
    assert f"in by r1 (peer of eth0, namespace {three.left.name})" in told_now
    with running("trace", "-c", "1", "-o", "json", *expected) as trace:
        trace.wait_for_text("tracing: links")
        three.left.call(send, "10.77.2.2", 11)
        assert trace.process.wait(COMMAND_TIMEOUT) == 0
    _, one = [json.loads(line) for line in trace.out().splitlines()]
    schema.validate(one)
    left = netns.resolve(three.left.name)
    assert one["in_device"] == "r1"
    assert (one["in_peer"]["device"], one["in_peer"]["netns_name"]) == ("eth0", three.left.name)
    assert (one["in_peer"]["netns"], one["in_peer"]["netns_cookie"]) == (left.inode, left.cookie)


def test_an_answered_ping_and_one_whose_time_ran_out(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    with following(controller, make_program, "icmp") as journey:
        three.left.ping("10.77.2.2", "-c", "1")
        three.left.ping("10.77.2.2", "-c", "1", "-t", "1", "-W", "1", check=False)
    request, reply, lost, told_off = journey.stories
    assert told(request)[-1] == "consumed"
    # the socket has a copy
    assert told(reply)[-1] == "consumed", reason(reply)
    assert told(reply.shown_branches()[0])[-1] == "delivered"
    assert told(lost)[-2:] == ["prerouting", "dropped_by_kernel"]
    assert reason(lost) == ("IP_INHDR", "ip_forward")
    assert told(told_off)[-1] == "consumed"
