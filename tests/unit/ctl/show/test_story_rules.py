# SPDX-License-Identifier: GPL-2.0
"""Rules of stories: those that match all packets, those that reject, and the one to blame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from ipttctl.events.records import EventRecord
from ipttctl.show.rule import Rule, RulesOf
from ipttctl.show.story_json import story_object
from ipttctl.show.story_summary import StorySummary
from ipttctl.show.story_text import StoryText
from ipttctl.show.story_words import StorySources
from ipttctl.stories.model import Story
from ipttproto import EventFlag, Kind, Verdict
from tests.unit.ctl.stories.packets import INPUT, Traveller, one_story, told


def rules(texts: Mapping[tuple[str, int], Rule | None]) -> RulesOf:
    """The rules of chains by their numbers."""

    def of(records: Sequence[EventRecord]) -> list[Rule | None]:
        return [texts.get((one.chain.rstrip(b"\0").decode(), one.rulenum)) for one in records]

    return of


def show(story: Story, texts: Mapping[tuple[str, int], Rule | None] | None) -> list[str]:
    """The lines, with single spaces; no ``texts``: nobody asks for rules."""
    sources = StorySources(rules=None if texts is None else rules(texts))
    lines = StoryText(1000, sources=sources).lines([story])
    return [" ".join(str(line).split()) for line in lines]


def at_filter(fill: Callable[[Traveller], None], verdict: Verdict = Verdict.DROP) -> Story:
    """A packet that passes the legacy table filter at INPUT."""
    packet = Traveller()
    packet.received("eth0")
    packet.now(pf=2, hook=INPUT)
    fill(packet)
    packet.legacy(Kind.EXIT, "filter", "INPUT", verdict=verdict)
    packet.function("iptable_filter_hook", 1, "iptable_filter", verdict=verdict)
    packet.leave(verdict)
    if verdict == Verdict.DROP:
        packet.dropped(6, "nf_hook_slow")
    else:
        packet.socket()
        packet.freed()
    return one_story(packet)


def of_all(kind: Kind, chain: str, number: int) -> Callable[[Traveller], None]:
    """An event that the kernel calls the policy or the end of a chain."""
    return lambda packet: packet.legacy(kind, "filter", chain, number)


def jump_and(kind: Kind, number: int) -> Callable[[Traveller], None]:
    def fill(packet: Traveller) -> None:
        packet.legacy(Kind.RULE, "filter", "INPUT", 1)
        packet.legacy(kind, "filter", "BLOCK", number)

    return fill


JUMP = {("INPUT", 1): Rule("-A INPUT -s 192.0.2.7 -j BLOCK")}


def test_a_rule_that_drops_all_is_no_policy() -> None:
    story = at_filter(of_all(Kind.POLICY, "INPUT", 3))
    lines = show(story, {("INPUT", 3): Rule("-A INPUT -j DROP")})
    assert "filter INPUT 3 -A INPUT -j DROP" in lines
    assert lines[-1].startswith('dropped by filter INPUT 3 "-A INPUT -j DROP", ')
    sources = StorySources(rules=rules({("INPUT", 3): Rule("-A INPUT -j DROP")}))
    found = story_object(story, sources)
    assert found["end"]["rule"]["kind"] == "rule"


def test_a_policy_is_one() -> None:
    lines = show(at_filter(of_all(Kind.POLICY, "INPUT", 3)), {})
    assert lines[-1].startswith("dropped by policy of filter INPUT, ")
    lines = show(at_filter(of_all(Kind.POLICY, "INPUT", 3), Verdict.ACCEPT), {})
    assert "filter INPUT accepted by policy" in lines


def test_nobody_knows_which() -> None:
    raced = Rule(None, "the table was replaced while the packet passed")
    story = at_filter(of_all(Kind.POLICY, "INPUT", 3))
    for texts, why in ((None, "rules are not read"), ({("INPUT", 3): raced}, raced.why)):
        lines = show(story, texts)
        wanted = f"dropped by policy of filter INPUT, or its rule 3 (rule uncertain: {why}), "
        assert lines[-1].startswith(wanted)
    lines = show(at_filter(of_all(Kind.POLICY, "INPUT", 3), Verdict.ACCEPT), None)
    assert "filter INPUT accepted" in lines


def test_rules_that_match_all_in_chains() -> None:
    texts = {**JUMP, ("BLOCK", 1): Rule("-A BLOCK -j DROP")}
    lines = show(at_filter(jump_and(Kind.RETURN, 1)), texts)
    assert "filter BLOCK 1 -A BLOCK -j DROP" in lines
    assert lines[-1].startswith('dropped by filter BLOCK 1 "-A BLOCK -j DROP", ')
    texts = {**JUMP, ("BLOCK", 1): Rule("-A BLOCK -j ACCEPT")}
    lines = show(at_filter(jump_and(Kind.RETURN, 1), Verdict.ACCEPT), texts)
    assert "filter BLOCK 1 -A BLOCK -j ACCEPT" in lines
    # the end of a chain drops nothing, so it is a rule
    lines = show(at_filter(jump_and(Kind.RETURN, 1)), None)
    assert lines[-1].startswith("dropped by filter BLOCK 1 (rule uncertain: rules are not read), ")


def test_a_rule_that_has_all_return_decides_nothing() -> None:
    texts = {**JUMP, ("BLOCK", 1): Rule("-A BLOCK -j RETURN")}
    lines = show(at_filter(jump_and(Kind.RETURN, 1), Verdict.ACCEPT), texts)
    assert not [line for line in lines if "RETURN" in line]


@pytest.mark.parametrize(
    ("text", "rejects"),
    [
        ("-A INPUT -j REJECT --reject-with icmp-port-unreachable", True),
        ("-A INPUT -m comment --comment reject -j DROP", False),
        ("-A reject -m addrtype --src-type BROADCAST -j DROP", False),
        ("-A INPUT -m set --match-set reject src -j DROP", False),
        ('-A INPUT -m comment --comment "-j REJECT" -j DROP', False),
        ("tcp dport 23 reject with tcp reset", True),
        ('tcp dport 23 counter reject comment "x"', True),
        ("reject", True),
        ("tcp dport vmap { 22 : drop, 23 : jump reject }", False),
        ("ip saddr @reject drop", False),
        ('tcp dport 23 drop comment "reject"', False),
    ],
)
def test_which_rules_reject(text: str, rejects: bool) -> None:
    packet = Traveller(pf=2, hook=INPUT)
    if text.startswith("-A"):
        packet.legacy(Kind.RULE, "filter", "INPUT", 1)
        packet.legacy(Kind.EXIT, "filter", "INPUT", verdict=Verdict.DROP)
    else:
        packet.nft(Kind.CHAIN_RULE, "INPUT", 1, Verdict.DROP)
        packet.nft(Kind.CHAIN_EXIT, "INPUT", verdict=Verdict.DROP)
    packet.leave(Verdict.DROP)
    packet.dropped(6, "nf_hook_slow")
    last = show(one_story(packet), {("INPUT", 1): Rule(text)})[-1]
    assert last.startswith("rejected by" if rejects else "dropped by")


@pytest.mark.parametrize(
    "text",
    [
        *("-A INPUT -p tcp -j web", "-A INPUT -p tcp -j KUBE-X", "-A INPUT -p tcp -j DOCKER"),
        *("-A INPUT -p tcp -g DROP", "-A INPUT -j LOG", "-A INPUT -j SET --add-set x src"),
        *("-A INPUT -j DSCP --set-dscp 0x0a", "-A INPUT -j TEE --gateway 192.0.2.1", "-A INPUT"),
        *("-A INPUT -j TTL --ttl-dec 1", "-A INPUT -j CONNMARK --save-mark", "-A INPUT -j TRACE"),
        '-A INPUT -j LOG --log-prefix "-j TCPMSS --x"',
    ],
)
def test_a_rule_that_drops_nothing_is_not_to_blame(text: str) -> None:
    """A match refuses a packet without an event of its rule."""
    story = at_filter(lambda packet: packet.legacy(Kind.RULE, "filter", "INPUT", 1))
    texts = {("INPUT", 1): Rule(text)}
    assert show(story, texts)[-1].startswith("dropped by filter INPUT (rule not seen), ")
    found = story_object(story, StorySources(rules=rules(texts)))
    assert found["end"]["rule"]["rule"] is None


@pytest.mark.parametrize(
    ("text", "certain"),
    [
        ("-A INPUT -p udp -j REJECT --reject-with icmp-port-unreachable", True),
        ("-A INPUT -j MASQUERADE", True),
        ("-A INPUT -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1", True),
        # a data offset below 5, or a small MTU of the path
        ("-A INPUT -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", False),
        ("-A INPUT -p tcp -j TCPOPTSTRIP --strip-options 8", False),
        ("-A INPUT -p tcp -j ECN --ecn-tcp-remove", False),
        ("-A INPUT -j CHECKSUM --checksum-fill", False),
        ("-A INPUT -j SYNPROXY", False),
        # of other people's modules
        ("-A INPUT -p udp -j RTPENGINE --id 0", False),
        ("-A INPUT -j TARPIT", False),
    ],
)
def test_a_rule_whose_target_may_drop_is_to_blame(text: str, *, certain: bool) -> None:
    """Behind some of these targets other rules are asked, whose matches may refuse the packet."""
    story = at_filter(lambda packet: packet.legacy(Kind.RULE, "filter", "INPUT", 1))
    texts = {("INPUT", 1): Rule(text)}
    verb = "rejected" if "REJECT" in text else "dropped"
    doubt = "" if certain else ", or a match of a later rule"
    assert show(story, texts)[-1].startswith(f'{verb} by filter INPUT 1 "{text}"{doubt}, 5 us')
    found = story_object(story, StorySources(rules=rules(texts)))
    assert found["end"]["rule"]["rule"] == text


@pytest.mark.parametrize("second", [None, Rule("-A BLOCK -j RETURN"), Rule("-A BLOCK -j LOG")])
def test_the_end_of_a_chain_is_not_to_blame(second: Rule | None) -> None:
    texts = {**JUMP, ("BLOCK", 2): second}
    story = at_filter(jump_and(Kind.RETURN, 2))
    assert show(story, texts)[-1].startswith("dropped by filter INPUT (rule not seen), ")


def test_a_rule_that_matches_all_and_drops_nothing_is_not_to_blame() -> None:
    texts = {("INPUT", 3): Rule("-A INPUT -j LOG")}
    lines = show(at_filter(of_all(Kind.POLICY, "INPUT", 3)), texts)
    assert lines[-1].startswith("dropped by filter INPUT (rule not seen), ")


def test_the_rule_that_dropped_was_lost() -> None:
    counted = EventFlag.COUNTED

    def story(all_rules: int) -> Story:
        packet = Traveller(flags=counted)
        packet.received("eth0")
        packet.now(pf=2, hook=INPUT)
        packet.legacy(Kind.RULE, "filter", "INPUT", 1, rules=1)
        packet.legacy(Kind.EXIT, "filter", "INPUT", verdict=Verdict.DROP, rules=all_rules)
        packet.dropped(6, "nf_hook_slow")
        return one_story(packet)

    unsure = "dropped by filter INPUT 1 (rule uncertain: rules are not read), "
    assert show(story(1), None)[-1].startswith(unsure)
    assert show(story(2), None)[-1].startswith("dropped by filter INPUT (rule not seen), ")


def test_a_function_that_accepted_is_not_to_blame() -> None:
    packet = Traveller()
    packet.received("eth0")
    packet.now(pf=2, hook=INPUT)
    packet.nft(Kind.CHAIN_POLICY, "input")
    packet.nft(Kind.CHAIN_EXIT, "input")
    packet.function("nft_do_chain_inet", 1, "nf_tables")
    packet.leave(Verdict.DROP)
    packet.dropped(6, "nf_hook_slow")
    assert show(one_story(packet), None)[-1].startswith("dropped by a function at INPUT, ")


def test_rules_of_the_same_number_are_told_apart() -> None:
    packets = []
    for number, generation in enumerate([7, 8, 8, 9], start=1):
        packet = Traveller(number, ruleset=generation)
        packet.received("eth0")
        packet.nft(Kind.CHAIN_RULE, "input", 1, Verdict.DROP, hook=INPUT, pf=2)
        packet.dropped(6, "nf_hook_slow")
        packets.append(packet)
    texts = {7: Rule("ip saddr 192.0.2.7 drop"), 8: Rule("tcp dport 8080 drop")}

    def of(records: Sequence[EventRecord]) -> list[Rule | None]:
        return [texts[min(one.ruleset, 8)] for one in records]

    summary = StorySummary(StorySources(rules=of))
    summary.add(told(*packets))
    assert [group.count for group in summary.groups()] == [3, 1]
    unread = StorySummary()
    unread.add(told(*packets))
    assert sorted(group.count for group in unread.groups()) == [1, 1, 2]


def test_names_of_chains_that_events_cut() -> None:
    name = "a" * 40

    def story() -> Story:
        packet = Traveller(pf=2, hook=INPUT)
        packet.nft(Kind.CHAIN_RULE, name[:31], 1, Verdict.DROP)
        packet.leave(Verdict.DROP)
        packet.dropped(6, "nf_hook_slow")
        return one_story(packet)

    assert show(story(), None)[-1].startswith(f"dropped by nft inet fw {name[:31]}... 1 ")
    texts = {(name[:31], 1): Rule("drop", chain=name)}
    assert show(story(), texts)[-1].startswith(f'dropped by nft inet fw {name} 1 "drop"')
    found = story_object(story(), StorySources(rules=rules(texts)))
    assert found["end"]["rule"]["chain"] == name


def test_names_of_tables_that_events_cut() -> None:
    name = "t" * 40

    def story() -> Story:
        packet = Traveller(pf=2, hook=INPUT)
        packet.nft(Kind.CHAIN_RULE, "input", 1, Verdict.DROP, table=name[:31].encode())
        packet.leave(Verdict.DROP)
        packet.dropped(6, "nf_hook_slow")
        return one_story(packet)

    assert show(story(), None)[-1].startswith(f"dropped by nft inet {name[:31]}... input 1 ")
    texts = {("input", 1): Rule("drop", table=name)}
    assert show(story(), texts)[-1].startswith(f'dropped by nft inet {name} input 1 "drop"')
    found = story_object(story(), StorySources(rules=rules(texts)))
    assert found["end"]["rule"]["table"] == name
