# SPDX-License-Identifier: GPL-2.0
"""Events that pass a filter, and the command line's words for filters."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ipttctl.errors import UsageError
from ipttctl.events.filter import EventFilter, HookPattern, RulePattern
from ipttctl.events.records import decode_events
from ipttctl.families import NfFamily
from ipttctl.hooks import event_pattern
from ipttctl.hooks.nf import NfHook
from ipttproto import Kind, parse_batch
from tests.unit.ctl.support import batch_payload, chain_event, event

EVENTS: list[dict[str, Any]] = [
    event(link=3, kind=Kind.RULE, rulenum=1, table=b"raw"),
    event(link=3, kind=Kind.EXIT, rulenum=0, verdict=0, hook=1),
    event(link=4, kind=Kind.EXIT, rulenum=0, verdict=1, pf=10, netns_cookie=7),
    event(link=5, kind=Kind.PACKET, rulenum=0, verdict=0, in_name=b"eth0", table=b"", chain=b""),
    event(link=4, kind=Kind.POLICY, rulenum=2, chain=b"INPUT"),
    event(link=6, kind=Kind.PACKET, verdict=1, pf=5, hook=0, priority=-5, table=b"", chain=b""),
    chain_event(link=7, rulenum=2),
    chain_event(link=7, kind=Kind.CHAIN_END, rulenum=0, chain=b"near", family=2, table_handle=4),
    chain_event(link=7, kind=Kind.CHAIN_EXIT, rulenum=0, verdict=0, chain=b"n" * 31, table=b"a/b"),
    event(link=8, kind=Kind.KNOWN, rulenum=0, table=b"nat"),
    chain_event(link=9, kind=Kind.CHAIN_KNOWN, rulenum=0, table=b"nat", chain=b"post"),
]
PARSE = event_pattern
RULE = RulePattern.parse


def passing(wanted: EventFilter) -> list[int]:
    batch = parse_batch(batch_payload(EVENTS, sequence=100))
    found = decode_events(batch.select(wanted.wanted(batch.events)))
    return [record.sequence - 100 for record in found]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (EventFilter(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (EventFilter(links=[4, 5]), [2, 3, 4]),
        (EventFilter(links=[]), []),
        (EventFilter(kinds={Kind.EXIT}), [1, 2]),
        # NF_DROP is 0, the value in events without a verdict
        (EventFilter(verdicts={0}), [1, 3, 8]),
        (EventFilter(verdicts={0, 1}, links={3, 6}), [1, 5]),
        (EventFilter(namespaces={7}), [2]),
        (EventFilter(devices={"eth0"}), [3]),
        (EventFilter(devices={"enp0s8"}, links={4}), [2, 4]),
        (EventFilter(devices={"a name that is longer than any device's"}), []),
    ],
)
def test_members(wanted: EventFilter, numbers: list[int]) -> None:
    assert passing(wanted) == numbers


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["table"], [0, 1, 2, 4, 9]),
        (["nf"], [3, 5]),
        (["table", "nf"], [0, 1, 2, 3, 4, 5, 9]),
        (["output"], [0, 2, 3, 4, 6, 7, 8, 9, 10]),
        (["LOCAL_OUT"], [0, 2, 3, 4, 6, 7, 8, 9, 10]),
        (["input"], [1]),
        (["nf:inet4/output"], [3]),
        (["nf:inet/output"], [3]),
        (["nf:inet6/output"], []),
        (["nf:inet4/output@filter"], [3]),
        (["nf:inet4/output@raw"], []),
        (["nf:netdev/ingress"], [5]),
        (["nf:inet/ingress@-5"], [5]),
        (["nf:netdev/ingress", "input"], [1, 5]),
        (["chain"], [6, 7, 8, 10]),
        (["chain:ip"], [7]),
        (["chain:inet", "nf"], [3, 5, 6, 8, 10]),
        (["chain:inet/filter"], [6]),
        (["chain:inet/filter/near", "chain:ip/filter/near"], [7]),
        # in events, long names are cut
        ([r"chain:inet/a\x2fb/" + "n" * 40], [8]),
        (["chain:inet/a/b"], []),
    ],
)
def test_hooks(texts: list[str], numbers: list[int]) -> None:
    assert passing(EventFilter(hooks=[event_pattern(text) for text in texts])) == numbers


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["raw"], [0]),
        (["filter"], [1, 2, 4, 6, 7]),
        (["*"], [0, 1, 2, 4, 6, 7, 8, 9, 10]),
        (["filter/INPUT"], [4]),
        (["filter/INPUT/2"], [4]),
        (["filter/out/2"], [6]),
        (["filter/near"], [7]),
        ([r"a\x2fb", "*/" + "n" * 40], [8]),
        (["filter/INPUT/1"], []),
        (["*/*/1"], [0]),
        (["*/OUTPUT"], [0, 1, 2, 9]),
        (["nat"], [9, 10]),
        (["nat/post"], [10]),
        (["raw/*/1", "filter/INPUT/2"], [0, 4]),
        (["a name that is longer than any name of the kernel"], []),
    ],
)
def test_rules(texts: list[str], numbers: list[int]) -> None:
    assert passing(EventFilter(rules=[RulePattern.parse(text) for text in texts])) == numbers


def test_patterns_are_values() -> None:
    assert RULE("filter/*/3") == RulePattern("filter", None, 3)
    assert PARSE("nf:bridge/forward@-7") == HookPattern(NfHook.EVENTS, [(NfFamily.BRIDGE, 2)], -7)


@pytest.mark.parametrize(
    ("parse", "text", "sentence"),
    [
        (
            PARSE,
            "egress",
            (
                "there is no hook 'egress'; use table, nf, nf:FAMILY/HOOK[@PRIORITY], "
                "chain[:FAMILY[/TABLE[/CHAIN]]], spine[:FAMILY[/HOOK]], journey or one of "
                "prerouting,"
            ),
        ),
        (PARSE, "chain:", "'chain:' does not name chains; write chain[:FAMILY[/TABLE[/CHAIN]]]"),
        (PARSE, "chain:ipx", "there is no family 'ipx'; use one of inet, ip, arp"),
        (RULE, r"a\b", r"'a\b' is not a rule"),
        (PARSE, "nf:ip", "'nf:ip' is not a netfilter hook"),
        (PARSE, "nf:arp/output", "family arp has no hook 'output'"),
        (RULE, "", "'' is not a rule; write TABLE, TABLE/CHAIN or .../NUMBER"),
        (RULE, "filter/", "'filter/' is not a rule"),
        (RULE, "a/b/1/2", "'a/b/1/2' is not a rule"),
        (RULE, "a/b/0", "'0' is not the number of a rule"),
        (RULE, "a/b/x", "'x' is not the number of a rule"),
        (RULE, "a/b/4294967296", "'4294967296' is not the number of a rule"),
    ],
)
def test_words_that_mean_nothing(parse: Any, text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        parse(text)
