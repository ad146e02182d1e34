# SPDX-License-Identifier: GPL-2.0
"""Stories as blocks of lines."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

import pytest

from ipttctl.events.records import EventRecord
from ipttctl.show.event_text import TimeFormat
from ipttctl.show.rule import Rule
from ipttctl.show.story_reasons import drop_words
from ipttctl.show.story_text import StoryText
from ipttctl.show.story_words import StorySources
from ipttctl.stories.assemble import StoryAssembler
from ipttctl.stories.model import Story
from ipttctl.system.processes import Process
from ipttctl.system.who import Participant, Receiver
from ipttproto import Conntrack, EventFlag, Kind, Verdict
from tests.unit.ctl.stories.packets import (
    CONTINUE,
    FORWARD,
    INPUT,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    Traveller,
    flood,
    ip4,
    one_story,
    records,
    to_docker,
    told,
)

S = 1_000_000_000

RULES = {
    (b"PREROUTING", 2): Rule("-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"),
    (b"DOCKER", 3): Rule(
        "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to 172.17.0.2:80",
        owner="docker",
        about="published port 8080",
    ),
    (b"FORWARD", 1): Rule("-A FORWARD -j DOCKER-USER"),
    (b"DOCKER-USER", 1): Rule("-A DOCKER-USER -s 192.0.2.0/24 -j DROP"),
    (b"input", 2): Rule("tcp dport 23 drop", owner="firewalld", about="zone public"),
    (b"input", 3): Rule('comment "no reject" drop'),
    (b"input", 4): Rule("tcp dport 25 reject with tcp reset"),
}
REASONS = {2: "NOT_SPECIFIED", 3: "NO_SOCKET", 5: "NEW_ONE", 6: "NETFILTER_DROP"}


def rules(records: Sequence[EventRecord]) -> list[Rule | None]:
    of_rules = {Kind.RULE, Kind.CHAIN_RULE}
    return [
        RULES.get((one.chain, one.rulenum)) if one.kind in of_rules else None for one in records
    ]


class Names:
    """Names of namespaces: one has a name that wants to be a line."""

    def name(self, cookie: int, moment: int | None = None) -> str | None:
        """The name."""
        assert moment is not None
        return {8: "we\nb"}.get(cookie)


SSHD = Participant(Process(812, 0, "sshd", 0, ""))
CURL = Participant(Process(12, 0, "curl\x1b", 0, ""))
SOURCES = StorySources(
    rules=rules,
    reason=REASONS.get,
    socket=lambda inode, _, uid: Receiver(inode, uid, (SSHD,)),
    sender=lambda *_: CURL,
)


def show(*stories: Story, width: int = 120, **options: Any) -> list[str]:
    options.setdefault("sources", SOURCES)
    options.setdefault("time_format", TimeFormat.RELATIVE)
    return [str(line) for line in StoryText(width, **options).lines(stories)]


def at_input(*rulenums: tuple[int, Verdict]) -> Traveller:
    packet = Traveller()
    packet.received("eth0")
    packet.now(pf=2, hook=INPUT)
    for number, verdict in rulenums:
        packet.nft(Kind.CHAIN_RULE, "input", number, verdict)
    if rulenums:
        verdict = rulenums[-1][1]
        packet.nft(Kind.CHAIN_EXIT, "input", verdict=verdict)
        packet.function("nft_do_chain_inet", 1, "nf_tables", verdict=verdict)
        packet.leave(verdict)
    return packet


EXAMPLE = """\
0.000000  tcp 192.0.2.7:51324 > 203.0.113.5:8080 SYN  in by eth0
  raw, mangle PREROUTING  accepted by policy
  nat PREROUTING 2        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
  nat DOCKER 3  -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to
      172.17.0.2:80  [docker: published port 8080]
                          > 172.17.0.2:80
  route                   to docker0
  filter FORWARD 1        -A FORWARD -j DOCKER-USER
  filter DOCKER-USER 1    -A DOCKER-USER -s 192.0.2.0/24 -j DROP
  dropped by filter DOCKER-USER 1 "-A DOCKER-USER -s 192.0.2.0/24 -j DROP",
    18 us after it came in
"""


def test_the_example() -> None:
    assert show(one_story(to_docker()), width=79) == EXAMPLE.splitlines()


def test_lines_fit() -> None:
    for width in (60, 80, 100):
        lines = show(one_story(to_docker()), width=width)
        assert max(map(len, lines)) <= width
        assert "".join("".join(lines).split()).count("172.17.0.2:80") == 2


def copied(random: Random, numbers: Iterator[int], depth: int) -> list[Traveller]:
    """A packet that went some way, with copies of copies of it."""
    packet = Traveller(next(numbers), pf=2, hook=PREROUTING, in_name=b"eth0")
    made = [packet]
    for place in range(random.randrange(1, 6)):
        packet.now(hook=random.choice((PREROUTING, INPUT, FORWARD)))
        packet.nft(Kind.CHAIN_RULE, "input", random.randrange(2, 6), mark=random.randrange(3))
        packet.nft(Kind.CHAIN_EXIT, "input")
        packet.function("nft_do_chain_inet", place, "nf_tables", tos=4 * random.randrange(3))
        if depth and random.random() < 0.7:
            copies = copied(random, numbers, depth - 1)
            copies[0].events.insert(0, {**copies[0].events[0], "time": packet.time})
            copies[0].events[0] |= {"kind": Kind.JOURNEY_COPY, "rule_handle": packet.number}
            made += copies
        if random.random() < 0.5:
            packet.sent("a-long-device")
            packet.received("another-one")
    packet.time += 1000 * random.randrange(10)
    random.choice((packet.freed, partial(packet.dropped, 9, "a_function_of_the_kernel")))()
    return made


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_lines_of_copies_fit(seed: int, colour: bool) -> None:
    """Rules, names and addresses have short words here, so that each line can be broken."""
    stories = told(*copied(Random(seed), itertools.count(1), 3))
    lines = [
        re.sub("\033\\[[0-9]*m", "", line)
        for verbose in (False, True)
        for line in show(*stories, width=80, colour=colour, verbose=verbose)
    ]
    assert [line for line in lines if len(line) > 80] == []


def test_a_rule_that_fits_nowhere_begins_below_its_label() -> None:
    packet = at_input((2, Verdict.CONTINUE), (2, Verdict.DROP))
    long = Rule("x" * 70, owner="o")
    lines = show(
        one_story(packet), width=80, sources=StorySources(rules=lambda some: [long] * len(some))
    )
    at = lines.index("  nft inet fw input 2")
    assert lines[at + 1] == 6 * " " + 70 * "x"


def test_verbose_unfolds() -> None:
    lines = show(one_story(to_docker()), verbose=True)
    text = "\n".join(lines)
    assert "    ipv4_conntrack_in (nf_conntrack): accept" in lines
    assert "connection none > new (id 4021)" in text
    assert text.index("raw PREROUTING") < text.index("iptable_raw_hook")
    assert text.index("nf_nat_ipv4_pre_routing") < text.index("> 172.17.0.2:80")
    assert text.count("accepted by policy") == 0


def test_stories_of_one_way_name_their_own_connections() -> None:
    first, second = to_docker(), to_docker()
    for event in second.events:
        event["packet"] = 2
        event["ct_id"] = 5 if event["ct_id"] else 0
    one, other = told(first, second)
    assert one.plot is other.plot
    known = [line.strip() for line in show(one, other, verbose=True) if "connection" in line]
    assert known == ["connection none > new (id 4021)", "connection none > new (id 5)"]


def test_times_of_the_clock() -> None:
    [heading, *_] = show(one_story(to_docker()), time_format=TimeFormat.NANOSECONDS)
    assert heading.partition("  ")[0].endswith("45.000001000")


def test_packets_of_one_way_have_their_own_addresses_and_times() -> None:
    first, second = told(*flood(2))
    lines = show(first, second)
    assert lines[0].startswith("0.000000  tcp 192.0.2.7:1025 ")
    assert lines[3].startswith("0.000100  tcp 192.0.2.7:1026 ")
    assert lines[1:3] == lines[4:]
    assert lines[2] == "  delivered to sshd (pid 812), 8 us after it came in"


@pytest.mark.parametrize(
    ("number", "end"),
    [
        (
            2,
            'dropped by nft inet fw input 2 "tcp dport 23 drop" (firewalld: zone public)',
        ),
        (3, 'dropped by nft inet fw input 3 "comment "no reject" drop"'),
        (4, 'rejected by nft inet fw input 4 "tcp dport 25 reject with tcp reset"'),
    ],
)
def test_a_rule_of_nftables_is_to_blame(number: int, end: str) -> None:
    packet = at_input((1, Verdict.CONTINUE), (number, Verdict.DROP))
    lines = show(one_story(packet))
    assert len(lines) == 3
    assert lines[-1].startswith(f"  {end}, ")


def test_a_rule_has_one_name() -> None:
    """Its place; the handle besides where its text is not known."""
    packet = at_input((7, Verdict.DROP))
    for unknown, end in (
        (StorySources(), "(handle 17), 4 us after it came in"),
        (
            StorySources(rules=lambda records: [Rule(None, "gone") for _ in records]),
            "(handle 17) (rule uncertain: gone), 4 us after it came in",
        ),
    ):
        lines = show(one_story(packet), sources=unknown)
        assert lines[1].startswith("  nft inet fw input 7     ")
        assert lines[1].endswith("handle 17: drop")
        assert lines[2] == f"  dropped by nft inet fw input 7 {end}"
    sources = StorySources(rules=lambda records: [Rule("drop") for _ in records])
    lines = show(one_story(packet), sources=sources)
    assert lines[1] == "  nft inet fw input 7     drop"
    assert lines[2] == '  dropped by nft inet fw input 7 "drop", 4 us after it came in'


def through_router(ttl: int, *chains: str) -> Traveller:
    packet = Traveller()
    packet.received("eth0")
    packet.now(pf=2, hook=PREROUTING)
    for number, chain in enumerate(chains, 1):
        packet.nft(Kind.CHAIN_POLICY, chain)
        packet.nft(Kind.CHAIN_EXIT, chain)
        packet.function("nft_do_chain_inet", number)
    packet.function("nf_nat_ipv4_pre_routing", 9)
    packet.leave()
    packet.now(hook=FORWARD, out_name=b"eth1")
    packet.nft(Kind.CHAIN_RULE, "forward", 2)
    packet.nft(Kind.CHAIN_EXIT, "forward")
    packet.function("nft_do_chain_inet", 1, ttl=ttl)
    packet.leave(ttl=ttl)
    packet.sent("eth1")
    packet.freed()
    return packet


def test_the_ttl_of_a_forwarded_packet() -> None:
    lines = show(one_story(through_router(63)))
    assert not [line for line in lines if "TTL" in line]
    lines = show(one_story(through_router(63)), verbose=True)
    assert "  route                   to eth1, TTL 64 > 63" in lines
    lines = show(one_story(through_router(60)))
    at = lines.index("                          TTL 64 > 60")
    assert lines[at - 1].startswith("  nft inet fw forward 2 ")


@pytest.mark.parametrize("chain", ["pre", "preroute", "a" * 10, "a" * 30])
def test_texts_stand_in_a_column(chain: str) -> None:
    lines = show(one_story(through_router(60, chain)), sources=StorySources())
    label = f"nft inet fw {chain} PREROUTING"
    column = 4 + max(22, len(label) if len(label) <= 36 else 0)
    [policy] = [line for line in lines if "accepted by policy" in line]
    assert policy == f"  {label:<{column - 4}}  accepted by policy"
    for text in ("to eth1", "handle 12: accept", "TTL 64 > 60"):
        [line] = [line for line in lines if text in line]
        assert line.index(text) == column


@pytest.mark.parametrize(
    ("reason", "function", "end"),
    [
        (3, "udp_queue_rcv", "dropped: no socket (NO_SOCKET in udp_queue_rcv)"),
        (2, "arp_error_report", "dropped: neighbour does not answer (arp_error_report)"),
        (2, "strange", "dropped: strange"),
        (5, "f\x1b", r"dropped: NEW_ONE in f\x1b"),
        (77, "f", "dropped: reason 77 in f"),
    ],
)
def test_the_kernel_drops(reason: int, function: str, end: str) -> None:
    packet = at_input()
    packet.dropped(reason, function)
    assert show(one_story(packet))[-1] == f"  {end}, 1 us after it came in"


def test_words_are_never_a_guess() -> None:
    assert drop_words(None, 0, "") == "the kernel gives no reason"
    assert drop_words("NO_SOCKET", 3, "") == "no socket (NO_SOCKET)"
    assert drop_words(None, 3, "ip_error") == "reason 3 in ip_error"
    assert drop_words("IP_INHDR", 8, "ip_rcv_core") == "bad IP header (IP_INHDR in ip_rcv_core)"


def outgoing() -> Traveller:
    packet = Traveller(pf=2, hook=OUTPUT, out_name=b"eth0", flags=EventFlag.PID, pid=12)
    packet.function("f", 1, flags=EventFlag.PID)
    packet.leave()
    packet.now(hook=POSTROUTING, flags=EventFlag(0))
    packet.function("g", 1)
    packet.now(saddr=ip4("198.51.100.1"), sport=40213)
    packet.function("nf_nat_ipv4_out", 2, "nf_nat", mark=5)
    packet.leave(mark=5)
    packet.sent("eth0")
    packet.freed()
    return packet


def test_a_packet_of_a_process_leaves() -> None:
    lines = show(one_story(outgoing()))
    assert lines == [
        r"0.000000  tcp 192.0.2.7:51324 > 203.0.113.5:8080 SYN  from curl\x1b (pid 12)",
        "  POSTROUTING             nf_nat_ipv4_out (nf_nat)",
        "                          > from 198.51.100.1:40213",
        "                          mark 0x0 > 0x5",
        "  left by eth0 as 198.51.100.1:40213, 6 us after it was sent",
    ]


def test_without_sources_numbers_are_shown() -> None:
    lines = show(one_story(outgoing()), *told(*flood(1)), sources=StorySources())
    assert lines[0].endswith("  from pid 12")
    assert "delivered to socket 4711 (uid 0)" in lines[-1]


def nat_of(backend: str, *, state: Conntrack, known: bool, consulted: bool) -> Traveller:
    """A datagram at PREROUTING, with the events that Linux 6.12 gives for a back end's NAT."""
    packet = Traveller(protocol=17, dport=9)
    packet.received("eth0")
    packet.now(pf=2, hook=PREROUTING)
    packet.function("ipv4_conntrack_defrag", 1, "nf_defrag_ipv4")
    packet.function("ipv4_conntrack_in", 2, "nf_conntrack", ct_state=state)
    if backend == "legacy":
        if known:
            packet.legacy(Kind.KNOWN, "nat", "PREROUTING")
        elif consulted:
            packet.legacy(Kind.RULE, "nat", "PREROUTING", 1)
            packet.legacy(Kind.EXIT, "nat", "PREROUTING", verdict=1)
    else:
        # iptables-nft: family ip and a table of its name; nft: of any name
        table: dict[str, Any] = {
            "family": 2,
            "table": b"nat" if backend == "iptables-nft" else b"n",
        }
        chain = "PREROUTING" if backend == "iptables-nft" else "pre"
        if known:
            packet.nft(Kind.CHAIN_KNOWN, chain, verdict=CONTINUE, **table)
        elif consulted:
            packet.nft(Kind.CHAIN_RULE, chain, 1, **table)
            packet.nft(Kind.CHAIN_EXIT, chain, **table)
    packet.function("nf_nat_ipv4_pre_routing", 3, "nf_nat", ct_state=state)
    packet.leave(ct_state=state)
    return packet


@pytest.mark.parametrize(
    ("backend", "label"),
    [
        ("legacy", "nat PREROUTING"),
        ("iptables-nft", "nft ip nat PREROUTING"),
        ("nft", "nft ip n pre"),
    ],
)
def test_nat_is_not_consulted_for_a_connection_that_it_knows_and_only_then(
    backend: str, label: str
) -> None:
    words = f"  {label:<22}  not consulted: connection known"
    # the second packet of a connection that nobody has answered is still a new one's
    for state in (Conntrack.ESTABLISHED, Conntrack.REPLY, Conntrack.NEW):
        packet = nat_of(backend, state=state, known=True, consulted=False)
        assert show(one_story(packet)).count(words) == 1
    for packet in (
        nat_of(backend, state=Conntrack.NEW, known=False, consulted=True),
        # NAT has nothing to do with these: not tracked, and errors of ICMP
        nat_of(backend, state=Conntrack.UNTRACKED, known=False, consulted=False),
        nat_of(backend, state=Conntrack.RELATED, known=False, consulted=False),
    ):
        for verbose in (False, True):
            assert not any(
                "not consulted" in line for line in show(one_story(packet), verbose=verbose)
            )


def test_connections_that_are_known() -> None:
    packet = Traveller(pf=2, hook=PREROUTING, in_name=b"eth0")
    packet.legacy(Kind.KNOWN, "nat", "PREROUTING")
    packet.nft(Kind.CHAIN_KNOWN, "pre")
    packet.function("nf_nat_ipv4_pre_routing", 1)
    packet.leave()
    packet.freed()
    lines = show(one_story(packet))
    assert lines[1] == "  nat PREROUTING          not consulted: connection known"
    assert lines[2] == "  nft inet fw pre         not consulted: connection known"
    assert lines[3] == "  used up by the kernel (tcp) after PREROUTING, 4 us after it came in"


def test_another_namespace_is_named() -> None:
    packet = Traveller(pf=2, hook=OUTPUT, out_name=b"veth0")
    packet.function("f", 1)
    packet.leave()
    packet.sent("veth0")
    packet.now(netns=4026532300, netns_cookie=8)
    packet.received("eth0")
    packet.now(pf=2, hook=INPUT)
    packet.function("f", 1)
    packet.leave()
    packet.socket()
    sources = StorySources(names=Names())
    lines = show(one_story(packet), sources=sources)
    assert lines[0].endswith("  from this host in 4026531840")
    assert lines[1:3] == [
        "  device                  sent by veth0",
        r"  device                  in by eth0, namespace we\nb",
    ]


def test_copies_are_indented() -> None:
    original = Traveller(1, pf=2, hook=OUTPUT, out_name=b"eth0")
    original.function("f", 1)
    original.leave()
    copy = Traveller(2, original.time)
    copy.copied(1)
    copy.sent("eth1")
    copy.freed()
    clone = Traveller(3, original.time)
    clone.copied(1)
    clone.freed()
    original.sent("eth0")
    original.freed()
    story = one_story(original, copy, clone)
    lines = show(story)
    assert len(lines) == 4
    # whose copy it is says the place where it stands
    assert lines[1] == "    copy  tcp 192.0.2.7:51324 > 203.0.113.5:8080 SYN"
    assert lines[2].startswith("      left by eth1 as 192.0.2.7:51324")
    assert len(show(story, verbose=True)) > 6
    # its original was told before
    [alone] = told(copy)
    assert show(alone)[0] == (
        "0.000000  copy or part of packet 1:  tcp 192.0.2.7:51324 > 203.0.113.5:8080 SYN"
    )


@pytest.mark.parametrize(
    ("verdict", "data", "end"),
    [
        (Verdict.DROP, 1, "dropped by bpf (nf_bpf) at INPUT, EPERM"),
        (Verdict.STOLEN, 1, "dropped by bpf (nf_bpf) at INPUT, EPERM"),
    ],
)
def test_a_function_is_to_blame(verdict: Verdict, data: int, end: str) -> None:
    packet = at_input()
    packet.function("bpf", 1, "nf_bpf", verdict=verdict, verdict_data=data)
    packet.leave(verdict, verdict_data=data)
    lines = show(one_story(packet))
    assert lines[1:] == [f"  {end}, 2 us after it came in"]


def test_rules_are_asked_for_again() -> None:
    """A text may be known later: that of a rule that is not certain yet."""
    answers = [Rule(None, "not read yet"), Rule("tcp dport 22 accept")]
    sources = StorySources(rules=lambda records: [answers[0] for _ in records])
    text = StoryText(100, sources=sources)
    [story] = told(*flood(1))
    assert "rule uncertain (not read yet) handle 12: accept" in text.lines([story])[1]
    answers.pop(0)
    assert "tcp dport 22 accept" in text.lines([story])[1]


def test_where_a_packet_was_first_seen() -> None:
    sent, dropped = Traveller(1), Traveller(2)
    sent.sent("eth0")
    sent.freed()
    dropped.dropped(3, "f")
    lines = show(*told(sent, dropped))
    assert lines[0].endswith("SYN  first seen when a device sent it")
    assert lines[1] == "  left by eth0 as 192.0.2.7:51324, 1 us after it was first seen"
    assert lines[2].endswith("SYN  first seen at its end")
    assert lines[3] == "  dropped: no socket (NO_SOCKET in f)"


def test_packets_of_other_protocols() -> None:
    six = bytes.fromhex("20010db8" + 11 * "00" + "01")
    udp = Traveller(1, pf=10, ethertype=0x86DD, saddr=six, daddr=six, protocol=17, in_name=b"lo")
    ping = Traveller(2, protocol=1, icmp_type=8, in_name=b"lo")
    arp = Traveller(3, ethertype=0x0806, arp_operation=1, pf=3, hook=0, in_name=b"lo")
    lldp = Traveller(4, ethertype=0x88CC, pf=5, hook=0, in_name=b"lo")
    for packet in (udp, ping, arp, lldp):
        packet.function("f", 1)
    headings = [line for line in show(*told(udp, ping, arp, lldp)) if line[0] == "0"]
    assert [line.partition("  ")[2] for line in headings] == [
        "udp [2001:db8::1]:51324 > [2001:db8::1]:8080  from this host",
        "icmp 192.0.2.7 > 203.0.113.5 request  from this host",
        "arp request 192.0.2.7 > 203.0.113.5  in by lo",
        "ethertype LLDP(0x88cc)  in by lo",
    ]


def test_text_of_others_is_escaped() -> None:
    packet = Traveller()
    packet.received("e\x1b[0m")
    packet.now(pf=2, hook=INPUT)
    packet.nft(Kind.CHAIN_RULE, "in\nput", 2, table=b"f\x07w")
    packet.nft(Kind.CHAIN_EXIT, "in\nput", table=b"f\x07w")
    packet.function("f\x1b", 1, verdict=Verdict.DROP)
    packet.leave(Verdict.DROP)
    evil = StorySources(rules=lambda records: [Rule("a\n\x1bb") for _ in records])
    for verbose in (False, True):
        lines = show(one_story(packet), sources=evil, verbose=verbose)
        assert all(line.isprintable() for line in lines)


def test_colours() -> None:
    lines = show(one_story(to_docker()), colour=True)
    assert lines[0].startswith("\x1b[1m0.000000")
    assert lines[-1].startswith("\x1b[31m  dropped")
    assert all(line.count("\x1b") in {0, 2} for line in lines)


def test_fragments_that_are_put_together() -> None:
    packet = Traveller(flags=EventFlag.FRAGMENT)
    packet.received("eth0")
    packet.waits(99)
    quiet = StoryAssembler()
    quiet.add(records(packet.events))
    line = show(quiet.due(packet.time + 10 * S)[0])[-1]
    assert line.startswith("  waits for other fragments after it came in by eth0")
    packet.freed()
    line = show(one_story(packet))[-1]
    assert line.startswith("  put together with other fragments after it came in by eth0")


@pytest.mark.parametrize("verbose", [False, True])
def test_a_function_that_handed_the_packet_on(verbose: bool) -> None:
    packet = Traveller()
    packet.received("p1")
    packet.now(physin_ifindex=3, physout_ifindex=4)
    packet.function("f", 1, pf=2, hook=FORWARD)
    packet.leave(pf=2, hook=FORWARD)
    packet.sent("p2")
    packet.function("br_nf_forward", 1, "br_netfilter", pf=7, hook=FORWARD, verdict=Verdict.STOLEN)
    packet.leave(Verdict.STOLEN, pf=7, hook=FORWARD)
    packet.freed()
    lines = "\n".join(show(one_story(packet), verbose=verbose))
    # where br_netfilter calls the hooks of IP, nothing happened to the packet
    assert ("br_nf_forward (br_netfilter): handed it on" in lines) == verbose
    assert "stolen" not in lines


def test_a_socket_in_another_namespace() -> None:
    packet = Traveller()
    packet.received("eth0")
    packet.socket(netns_cookie=2, netns=7)
    assert any(line.split()[:1] == ["namespace"] for line in show(one_story(packet)))


def test_a_change_in_a_queue() -> None:
    packet = at_input()
    packet.function("f", 1, ttl=64, verdict=Verdict.QUEUE, verdict_data=3)
    packet.leave(Verdict.QUEUE, ttl=64, verdict_data=3)
    packet.now(hook=POSTROUTING, mark=9)
    packet.function("g", 1)
    assert any("in queue 3" in line and "mark" in line for line in show(one_story(packet)))
