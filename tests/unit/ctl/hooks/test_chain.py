# SPDX-License-Identifier: GPL-2.0
"""Base chains of nftables by name, and what their events say."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ipttctl.errors import UsageError
from ipttctl.events import describe
from ipttctl.events.filter import HookPattern
from ipttctl.families import NfFamily
from ipttctl.hooks import HookOptions, chosen, from_attributes
from ipttctl.hooks.chain import CHAIN_SYNTAX, ChainHook
from ipttctl.link.model import Link
from ipttctl.show.event_blocks import EventBlocks
from ipttctl.show.event_text import TimeFormat, decision
from ipttctl.show.packet_text import packet_text
from ipttctl.show.render_text import link_line
from ipttctl.system import netns
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.netns import OWN, Identity, Namespace
from ipttproto import EventFlag, Gone, Hook, Kind
from ipttproto.family import Top, limit
from tests.unit.ctl.show.test_event_text import record
from tests.unit.ctl.support import (
    NFT_CONTINUE,
    NFT_GOTO,
    NFT_JUMP,
    NFT_RETURN,
    chain_event,
    chain_link,
    joined,
)

LONGEST = limit("NFT_NAME")
#: names that the kernel takes: any bytes but NUL
NAMES = (
    st.binary(min_size=1, max_size=LONGEST)
    .filter(lambda raw: b"\0" not in raw)
    .map(lambda raw: raw.decode(errors="surrogateescape"))
)
DROP, ACCEPT, STOLEN, QUEUE = range(4)


@pytest.mark.parametrize(
    ("text", "hook"),
    [
        ("chain", ChainHook()),
        ("chain:inet", ChainHook(NfFamily.INET)),
        ("chain:ip", ChainHook(NfFamily.IPV4)),
        ("chain:ip6/filter", ChainHook(NfFamily.IPV6, "filter")),
        ("chain:arp/filter/IN-put_0.1", ChainHook(NfFamily.ARP, "filter", "IN-put_0.1")),
        ("chain:netdev/t/c", ChainHook(NfFamily.NETDEV, "t", "c")),
        ("chain:bridge/Zoë/c", ChainHook(NfFamily.BRIDGE, "Zoë", "c")),
        (r"chain:ip/a\x2fb\x20\\/\x1b", ChainHook(NfFamily.IPV4, "a/b \\", "\x1b")),
        (r"chain:ip/\xff\x0a", ChainHook(NfFamily.IPV4, "\udcff\n")),
    ],
)
def test_texts_and_hooks(text: str, hook: ChainHook) -> None:
    assert ChainHook.parse(text) == hook
    assert str(hook) == text


@pytest.mark.parametrize(
    ("text", "hook"),
    [
        ("chain:ipv4", ChainHook(NfFamily.IPV4)),
        ("chain:inet6/t", ChainHook(NfFamily.IPV6, "t")),
        ("chain:ip/a b", ChainHook(NfFamily.IPV4, "a b")),
        (r"chain:ip/\x41\x2F", ChainHook(NfFamily.IPV4, "A/")),
    ],
)
def test_other_texts(text: str, hook: ChainHook) -> None:
    assert ChainHook.parse(text) == hook


@given(st.sampled_from(NfFamily), st.none() | NAMES, st.none() | NAMES)
@example(NfFamily.IPV4, "/", "\\x2f")
@example(NfFamily.IPV4, "\x9b", "\udc9b")
def test_every_hook_is_its_text(family: NfFamily, table: str | None, chain: str | None) -> None:
    hook = ChainHook(family, table, chain if table else None)
    text = str(hook)
    assert ChainHook.means(text)
    assert ChainHook.parse(text) == hook
    # one word on a line, and as an argument as it is on the terminal
    assert text.isprintable()
    assert " " not in text
    assert text.count("/") == (hook.table is not None) + (hook.chain is not None)


@given(st.text(alphabet=st.sampled_from("chain:/inet46p\\x20\0 é\ud800\udc80")))
def test_every_other_text_is_an_error_of_ours(text: str) -> None:
    errors: list[UsageError] = []
    try:
        ChainHook.parse(f"chain{text}")
    except UsageError as error:
        errors.append(error)
    assert all(error.remedy for error in errors)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("chain:", f"'chain:' does not name chains; write {CHAIN_SYNTAX}"),
        ("chain:ip/", f"'chain:ip/' does not name chains; write {CHAIN_SYNTAX}"),
        ("chain:ip//c", "'chain:ip//c' does not name chains"),
        ("chain:ip/t/c/1", "'chain:ip/t/c/1' does not name chains"),
        ("chains", "'chains' does not name chains"),
        (
            "chain:ipx/t",
            "there is no family 'ipx'; use one of inet, ip, arp, netdev, bridge, ip6",
        ),
        (
            "chain:ip/" + "n" * 256,
            "'nnnnnnnnnnnnnnnn...' is longer than a name of nftables can be; give at most 255",
        ),
        ("chain:ip/t/" + "ä" * 128, "is longer than a name of nftables can be"),
        (
            "chain:ip/a\\b",
            "'a\\b' is not a name of nftables; write a backslash as \\\\, a slash as \\x2f,",
        ),
        ("chain:ip/a\\x00", "is not a name of nftables"),
        ("chain:ip/a\\", "is not a name of nftables"),
        ("chain:ip/a\0b", "is not a name of nftables"),
        ("chain:ip/t/\ud800", "is not a name of nftables"),
    ],
)
def test_texts_that_mean_nothing(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        ChainHook.parse(text)


def test_it_is_chosen() -> None:
    assert chosen(HookOptions(hook="chain:ip/t")) == ChainHook(NfFamily.IPV4, "t")
    hook = chosen(HookOptions(hook="chain", namespace=str(netns.own())))
    assert isinstance(hook, ChainHook)
    assert isinstance(hook.netns, Namespace)
    assert hook.netns.inode == netns.own()
    hook.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(hook.netns.fileno())
    for options, option in (({"device": "lo"}, "--device"), ({"count_rules": True}, "--count-r")):
        with pytest.raises(UsageError, match=f"^{option}.* does not go with chains; use it with"):
            chosen(HookOptions(hook="chain", **options))
    with pytest.raises(UsageError, match=r"--netns does not go with tables; use .* --hook chain"):
        chosen(HookOptions(hook="table", namespace="x"))


def requested(hook: ChainHook, opened: ExitStack) -> dict[str, Any]:
    """A request as it arrives at the module."""
    return Top.parse(Top.build(hook.request(opened)))


def test_request_says_where() -> None:
    with ExitStack() as opened:
        assert requested(ChainHook(), opened) == {"hook": Hook.CHAIN}
        assert requested(ChainHook(NfFamily.INET), opened) == {"hook": Hook.CHAIN, "family": 1}
        whole = ChainHook(NfFamily.IPV4, "Zoë\udcff", "n" * 255)
        assert requested(whole, opened) == {
            "hook": Hook.CHAIN,
            "family": 2,
            "table": "Zoë\udcff",
            "chain": "n" * 255,
        }
        place = requested(ChainHook(netns="/proc/self/ns/net"), opened)["netns-fd"]
        assert os.fstat(place).st_ino == netns.own()
        with pytest.raises(UsageError, match="namespace /nowhere cannot be opened"):
            ChainHook(netns="/nowhere").request(opened)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(place)


OURS = netns.resolve(str(OWN))


def test_what_the_module_says() -> None:
    hook = from_attributes(chain_link())
    assert hook == ChainHook(NfFamily.INET, "filter", "out", Identity(4026532201, 5), armed=True)
    hook = from_attributes({"hook": Hook.CHAIN})
    assert hook == ChainHook()
    assert list(hook.misses(3)) == [
        "no chains of nftables: nf_tables is not loaded; waiting for it"
    ]
    gone = from_attributes(chain_link(gone=1, armed=0))
    assert gone == ChainHook(
        NfFamily.INET, "filter", "out", Identity(4026532201, 5), gone=Gone.NETNS
    )
    assert list(gone.misses(3)) == [
        (
            "link 3 sees no packets any more: its network namespace is gone; it stays until it is "
            "detached"
        )
    ]
    # of a module of another build
    other = from_attributes(chain_link(family=9, gone=77))
    assert (str(other), other.gone) == ("chain:9/filter/out", 77)


def test_places_are_told_apart() -> None:
    places = [
        ChainHook(),
        ChainHook(netns=OURS),
        ChainHook(NfFamily.IPV4),
        ChainHook(NfFamily.INET),
        ChainHook(NfFamily.INET, "a"),
        ChainHook(NfFamily.INET, "a", netns=OURS),
        ChainHook(NfFamily.INET, "b"),
        ChainHook(NfFamily.INET, "a", "b"),
        ChainHook(NfFamily.INET, "ab"),
        ChainHook(NfFamily.INET, "a", "\udcff"),
        ChainHook(NfFamily.INET, "a", "\ufffd"),
    ]
    assert len({hook.identity() for hook in places}) == len(places)
    told = ChainHook(NfFamily.INET, "a", netns=OURS, armed=True)
    with Namespace(OWN) as own:
        for same in (OWN, str(OWN), own, own.fileno()):
            assert ChainHook(NfFamily.INET, "a", netns=same).identity() == told.identity()


def test_given_options_choose_the_same_hook() -> None:
    """Without a namespace a hook is in all: our own has to be there, in words that stay true."""
    assert ChainHook().given() == {"hook": "chain", "netns": None}
    own = {"hook": "chain:ip/t", "netns": "/proc/self/ns/net"}
    with Namespace(OWN) as opened:
        for place in (OWN, str(OWN), opened, OURS):
            assert ChainHook(NfFamily.IPV4, "t", netns=place).given() == own
        # a number of ours would be somebody else's inode
        by_descriptor = ChainHook(netns=opened.fileno()).given()
    assert by_descriptor == {"hook": "chain", "netns": str(OURS)}
    hook = chosen(HookOptions(hook=own["hook"], namespace=own["netns"]))
    assert hook.given() == own
    assert hook.identity() == ChainHook(NfFamily.IPV4, "t", netns=OURS).identity()
    hook.release()
    with pytest.raises(UsageError, match="no name and no process has network namespace 1"):
        ChainHook(netns=Identity(1, 5)).given()


def test_patterns_are_values() -> None:
    assert ChainHook.pattern("nf") is None
    assert ChainHook.pattern("chain") == HookPattern(ChainHook.EVENTS)
    assert ChainHook.pattern(r"chain:ip/a\x2f/c") == HookPattern(
        ChainHook.EVENTS, table_family=2, table="a/", chain="c"
    )


class Names(NamespaceNames):
    """Every namespace is called blue."""

    def name(self, cookie: int, moment: int | None = None) -> str:
        """The name of all."""
        del cookie, moment
        return "blue"


def test_link() -> None:
    line = link_line(Link.from_attributes(chain_link()), Names())
    assert line.startswith("link=5 gen=2 hook=chain:inet/filter/out netns=4026532201(blue) entry=")
    assert " armed=chains " in line
    everywhere = chain_link(table="a b\n", chain="\udcff", gone=1, armed=0)
    del everywhere["netns-cookie"]
    line = link_line(Link.from_attributes(everywhere))
    assert r" hook=chain:inet/a\x20b\x0a/\xff netns=all " in line
    assert " armed=none gone=netns " in line
    names = Names()
    assert list(from_attributes(chain_link()).rows(names)) == ["netns 4026532201(blue)"]
    assert list(ChainHook().rows(names)) == ["netns all", "nf_tables is not loaded"]
    assert list(ChainHook(gone=Gone.NETNS).rows(names)) == ["netns all", "GONE: netns"]
    assert str(OWN) in next(ChainHook(netns=OWN).rows(names))


#: what a rule decided, in words
VERDICTS: list[tuple[dict[str, Any], str]] = [
    ({"verdict": NFT_CONTINUE}, "continue"),
    ({"verdict": NFT_JUMP}, "jump near"),
    ({"verdict": NFT_GOTO, "target": b"x y\n"}, r"goto x\x20y\n"),
    ({"verdict": NFT_RETURN}, "return"),
    ({"verdict": ACCEPT}, "accept"),
    ({"verdict": DROP}, "drop"),
    ({"verdict": DROP, "verdict_data": 111}, "drop(ECONNREFUSED)"),
    ({"verdict": STOLEN}, "stolen"),
    ({"verdict": QUEUE, "verdict_data": 5}, "queue 5"),
    (
        {"verdict": QUEUE, "verdict_data": 3, "flags": EventFlag.QUEUE_BYPASS},
        "queue 3,bypass",
    ),
    ({"verdict": 4}, "repeat"),
    ({"verdict": 77}, "77"),
]


@pytest.mark.parametrize(("changes", "words"), VERDICTS)
def test_rules(changes: dict[str, Any], words: str) -> None:
    found = record(**chain_event(**changes))
    assert describe.chain_decision(found) == words
    assert list(ChainHook.outcome(found)) == ["inet/filter/out/1", words]
    assert decision(found) == (
        "ipttrace=[family=inet table=filter chain=out hook=OUTPUT in= out=enp0s8 handle=9 "
        f"rulenum=1 verdict={words.replace(' ', ':', 1)}]"
    )
    assert ChainHook.heading(found) == "OUTPUT"


@pytest.mark.parametrize(
    ("changes", "words", "shown"),
    [
        (
            {"kind": Kind.CHAIN_END, "verdict": NFT_RETURN, "chain": b"near", "rulenum": 0},
            ["inet/filter/near", "chain_end", "return"],
            "chain=near hook=OUTPUT in= out=enp0s8 kind=chain_end verdict=return]",
        ),
        (
            {"kind": Kind.CHAIN_POLICY, "verdict": ACCEPT, "rulenum": 0},
            ["inet/filter/out", "chain_policy", "accept"],
            "chain=out hook=OUTPUT in= out=enp0s8 kind=chain_policy verdict=accept]",
        ),
        (
            {"kind": Kind.CHAIN_KNOWN, "verdict": NFT_CONTINUE, "rulenum": 0},
            ["inet/filter/out", "not consulted: connection known"],
            "hook=OUTPUT in= out=enp0s8 kind=chain_known not consulted: connection known]",
        ),
        (
            {"flags": EventFlag.UNCERTAIN, "verdict": DROP, "physin_name": b"eth0"},
            ["inet/filter/out/1", "drop", "uncertain"],
            "out=enp0s8 physin=eth0 handle=9 rulenum=1 verdict=drop uncertain]",
        ),
        (
            {"table": b"a/ b", "chain": b"\xff", "verdict": DROP, "family": 99},
            [r"99/a\x2f\x20b/\xff/1", "drop"],
            r"table=a/\x20b chain=\xff hook=OUTPUT in= out=enp0s8 handle=9 rulenum=1 verdict=drop]",
        ),
    ],
)
def test_other_events(changes: dict[str, Any], words: list[str], shown: str) -> None:
    found = record(**chain_event(**changes))
    assert list(ChainHook.outcome(found)) == words
    assert decision(found).endswith(shown)
    assert decision(found).startswith("ipttrace=[family=")


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"verdict": ACCEPT}, "ACCEPT"),
        ({"verdict": DROP}, "DROP"),
        ({"verdict": DROP, "verdict_data": 1}, "DROP(EPERM)"),
        ({"verdict": STOLEN}, "STOLEN"),
        ({"verdict": QUEUE, "flags": EventFlag.QUEUE_BYPASS}, "QUEUE(0,bypass)"),
    ],
)
def test_exits(changes: dict[str, Any], verdict: str) -> None:
    exit_event = {"kind": Kind.CHAIN_EXIT, "rulenum": 0, "cost": 1500, "rules": 3}
    found = record(**chain_event(**exit_event | changes))
    effort = ["cost=1.500µs", "rules=3"]
    assert list(ChainHook.outcome(found)) == ["inet/filter/out", verdict, *effort]
    assert decision(found).replace(describe.COST, "1.500µs") == (
        f"nftables=[family=inet table=filter chain=out hook=OUTPUT verdict={verdict} "
        f"{' '.join(effort)}]"
    )
    flags = found.flags | EventFlag.UNCERTAIN
    assert decision(found._replace(flags=flags)).endswith(" rules=3 uncertain]")
    assert list(ChainHook.outcome(found._replace(flags=flags)))[-1] == "uncertain"


@pytest.mark.parametrize(
    ("place", "heading", "interface"),
    [
        ({"pf": 2, "hook": 3}, "OUTPUT", b"enp0s8"),
        ({"pf": 10, "hook": 0}, "PREROUTING", b"eth0"),
        # of inet tables, ingress is a hook of IP
        ({"pf": 2, "hook": 5}, "INGRESS", b"eth0"),
        ({"pf": 10, "hook": 5}, "INGRESS", b"eth0"),
        ({"pf": 5, "hook": 0, "family": 5}, "INGRESS", b"eth0"),
        ({"pf": 5, "hook": 1, "family": 5}, "EGRESS", b"enp0s8"),
        ({"pf": 7, "hook": 4, "family": 7}, "POSTROUTING", b"enp0s8"),
        ({"pf": 3, "hook": 1, "family": 3}, "OUT", b"enp0s8"),
    ],
)
def test_hooks_of_base_chains(place: dict[str, int], heading: str, interface: bytes) -> None:
    found = record(**chain_event(in_name=b"eth0", **place))
    assert ChainHook.heading(found) == heading
    assert describe.interface(found)[0] == interface


@pytest.mark.parametrize(
    ("changes", "packet"),
    [
        ({}, "T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030"),
        ({"pf": 7, "family": 7}, "T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030"),
        ({"pf": 3, "ethertype": 0x0806, "arp_operation": 1}, "192.168.1.138 -> 192.168.1.12 ARP"),
        ({"pf": 7, "ethertype": 0x0806, "arp_operation": 2}, "192.168.1.138 -> 192.168.1.12 ARP"),
        ({"pf": 5, "ethertype": 0x88CC}, "ethertype LLDP(0x88cc)"),
    ],
)
def test_packets(changes: dict[str, Any], packet: str) -> None:
    assert packet_text(record(**chain_event(**changes))).startswith(packet)


def test_blocks_in_colour() -> None:
    blocks = EventBlocks(300, colour=True, time_format=TimeFormat.RELATIVE)
    heading, rule = blocks.lines(joined(record(**chain_event())))
    assert heading.startswith("\033[1mOUTPUT T_ACK,PSH:")
    assert rule == "  0.000000\033[36m inet/filter/out/1 jump near\033[0m"
    [policy] = blocks.lines(joined(record(**chain_event(kind=Kind.CHAIN_POLICY, verdict=ACCEPT))))
    assert policy == "  0.000000 inet/filter/out chain_policy accept"
    for verdict, colour in ((ACCEPT, 32), (DROP, 31), (STOLEN, 33)):
        [end] = blocks.lines(joined(record(**chain_event(kind=Kind.CHAIN_EXIT, verdict=verdict))))
        assert f"\033[{colour}m inet/filter/out {describe.VERDICTS[verdict]} cost=" in end
