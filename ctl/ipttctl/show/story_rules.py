# SPDX-License-Identifier: GPL-2.0
"""The rules of a story: what they are called, which had a say, and which is to blame.

The kernel reports a rule of legacy tables that matches all packets, such as ``-A INPUT -j DROP``,
as the policy or the end of its chain, with the number of the rule. Its text tells them apart. Where
no text can be had, it may be either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from ipttctl.escape import word
from ipttctl.events.records import EventRecord
from ipttctl.families import nft_family_name
from ipttctl.show.rule import Rule
from ipttctl.stories.model import Consultation, Plot
from ipttctl.stories.steps import OF_NFT, OF_RULES
from ipttproto import Kind, Verdict
from ipttproto.family import limit

Rules: TypeAlias = Mapping[int, Rule | None]
"""The rules of a plot, by the index of their event."""

NOT_READ: Final = Rule(None, "rules are not read")
"""Stands for the rule of an event that may be of one or of none, where nobody asks for rules."""

MAYBE_RULES: Final = frozenset({Kind.RETURN, Kind.POLICY})
"""Kinds of events that are of a rule that matches all packets, or of none."""

_OF_LEGACY: Final = frozenset({Kind.RULE, *MAYBE_RULES})

_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_IN_BRACES: Final = re.compile(r"\{[^{}]*\}")
_REJECT: Final = re.compile(r"(?<!\S)(?<!jump )(?<!goto )reject(?!\S)")
_TARGET: Final = re.compile(r"(?<!\S)(-j|-g) (\S+)")

_JUMP: Final = re.compile(r"(?<!\S)-j (\S+)( -)?")

_LAST: Final = frozenset(
    {
        *("DROP", "REJECT", "NFQUEUE", "QUEUE", "TPROXY", "SNAT", "DNAT", "MASQUERADE"),
        *("REDIRECT", "NETMAP"),
    }
)
"""Targets of legacy rules that may drop, and behind which no other rule is asked."""

_DROPPING: Final = _LAST | {"SYNPROXY", "ECHO", "TARPIT", "DELUDE", "CHAOS"}
"""Targets that may drop and need no options: without these others look like user's chains."""

_HARMLESS: Final = frozenset(
    {
        *("AUDIT", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "HL", "HMARK"),
        *("IDLETIMER", "LED", "LOG", "MARK", "NFLOG", "RATEEST", "SECMARK", "SET", "TEE"),
        *("TOS", "TRACE", "TTL"),
    }
)
"""Targets that drop nothing (net/netfilter/xt_*.c of Linux 6.1 and 6.12), but for lack of memory.

All others with options may, those of other people's modules among them.
"""


def is_rule(record: EventRecord, rule: Rule | None) -> bool | None:
    """Whether an event of ``OF_RULES`` is of a rule; None if that cannot be said."""
    if record.kind not in MAYBE_RULES:
        return record.kind in {Kind.RULE, Kind.CHAIN_RULE}
    if rule is None:
        return False
    return True if rule.text is not None else None


def table_label(record: EventRecord, rule: Rule | None = None) -> str:
    """``nat``; ``nft inet fw`` for a table of nftables."""
    if record.kind not in OF_NFT:
        # names of legacy tables are short
        return word(record.table)
    name = _whole(record.table, rule.table if rule else None, limit("TABLE_NAME"))
    return f"nft {nft_family_name(record.family)} {name}"


def chain_name(record: EventRecord, rule: Rule | None = None) -> str:
    """The name of an event's chain; with dots where it may be longer than events have room for."""
    return _whole(record.chain, rule.chain if rule else None, limit("CHAIN_NAME"))


def _whole(name: bytes, known: str | None, room: int) -> str:
    """A name that is known, or that of an event, with dots where that may be cut."""
    if known:
        return word(known)
    return f"{word(name)}{'...' if len(name.rstrip(bytes(1))) >= room - 1 else ''}"


def chain_label(record: EventRecord, rule: Rule | None = None) -> str:
    """``nat PREROUTING``, ``nft inet fw input``."""
    return f"{table_label(record, rule)} {chain_name(record, rule)}"


def rule_label(record: EventRecord, rule: Rule | None) -> str:
    """The rule by its place: ``filter FORWARD 3``, ``nft inet fw input 2``."""
    label = chain_label(record, rule)
    if is_rule(record, rule):
        return f"{label} {record.rulenum}"
    end = "policy" if record.kind in {Kind.CHAIN_POLICY, Kind.POLICY} else "end"
    return f"{label} {end}" if is_rule(record, rule) is False else f"{label} {record.rulenum}/{end}"


def handle_words(record: EventRecord) -> str:
    """``handle 12``, by which nftables knows a rule, where its text is not known."""
    return f"handle {record.rule_handle}"


def owner_words(rule: Rule | None) -> str:
    """``firewalld: zone public``; empty if the owner is not known."""
    if rule is None or not rule.owner:
        return ""
    return f"{rule.owner}: {rule.about}" if rule.about else rule.owner


def rule_words(record: EventRecord, rule: Rule | None) -> str:
    """The rule to blame: ``nft inet filter INPUT 2 "tcp dport 23 drop"``."""
    if record.kind in {Kind.EXIT, Kind.CHAIN_EXIT}:
        return f"{chain_label(record)} (rule not seen)"
    text = rule_label(record, rule)
    match is_rule(record, rule):
        case False if record.kind in {Kind.CHAIN_POLICY, Kind.POLICY}:
            return f"policy of {chain_label(record, rule)}"
        case None if record.kind == Kind.POLICY:
            text = f"policy of {chain_label(record)}, or its rule {record.rulenum}"
        case None:
            # the end of a chain drops nothing
            text = f"{chain_label(record)} {record.rulenum}"
    if record.kind == Kind.CHAIN_RULE and (rule is None or rule.text is None):
        text += f" ({handle_words(record)})"
    if record.kind == Kind.RULE and rule is None:
        # what matched last need not be what dropped: see blamed_at()
        rule = NOT_READ
    if rule is not None:
        text += f' "{rule.text}"' if rule.text is not None else f" (rule uncertain: {rule.why})"
    if owner := owner_words(rule):
        text += f" ({owner})"
    if record.kind in _OF_LEGACY and rule and rule.text is not None and not _is_last(rule.text):
        text += ", or a match of a later rule"
    return text


def is_reject(record: EventRecord, rule: Rule | None) -> bool:
    """Whether the text of a rule that dropped says that the sender is told so."""
    if rule is None or rule.text is None or not is_rule(record, rule):
        return False
    text = _QUOTED.sub('""', rule.text)
    if targets := _TARGET.findall(text):
        return ("-j", "REJECT") in targets
    # verdicts of maps are names of chains
    return _REJECT.search(_IN_BRACES.sub("{}", text)) is not None


def rule_ats(plot: Plot) -> Iterator[int]:
    """The events of a plot that may name a rule."""
    return (at for at, one in enumerate(plot.occurrences) if one.record.kind in OF_RULES)


def blamed_at(plot: Plot, rules: Rules) -> int | None:
    """The event of the rule, policy or function to blame, if there is one.

    A match of a legacy rule may refuse a packet, as one of ports does where there is no whole
    header: the packet is dropped, and no event says by which rule. The one before is not to blame
    unless its target may drop, nor is the end of a chain. Behind some targets that may, other rules
    are asked: the words say so.
    """
    blamed = plot.end.blame
    if blamed is None or plot.record(blamed).kind not in _OF_LEGACY:
        return blamed
    record, rule = plot.record(blamed), rules.get(blamed)
    if rule is None:
        may_drop = record.kind != Kind.RETURN
    else:
        may_drop = rule.text is None or _may_drop(rule.text)
    if may_drop:
        return blamed
    kinds = [one.record.kind for one in plot.occurrences]
    return next((at for at in range(blamed, len(kinds)) if kinds[at] == Kind.EXIT), blamed)


def _may_drop(text: str) -> bool:
    """Whether a rule of a legacy table may drop packets itself."""
    jump = _JUMP.search(_QUOTED.sub('""', text))
    if jump is None:
        return False
    target, options = jump.groups()
    # chains have no options
    return target in _DROPPING or (options is not None and target not in _HARMLESS)


def _is_last(text: str) -> bool:
    """Whether no rule is asked behind one of a legacy table, which may drop."""
    jump = _JUMP.search(_QUOTED.sub('""', text))
    return jump is not None and jump[1] in _LAST


def merely_accepted(plot: Plot, consulted: Consultation, rules: Rules) -> bool:
    """Whether no rule decided or changed anything: the end of the chain accepted the packet."""
    if consulted.known or consulted.end is None:
        return False
    if plot.record(consulted.end).verdict != Verdict.ACCEPT:
        return False
    return not any(decided(plot, step.at, rules) or step.changes for step in consulted.rules)


def by_policy(plot: Plot, consulted: Consultation, rules: Rules) -> bool:
    """Whether the policy of a base chain was met for certain."""
    return any(
        plot.record(step.at).kind in {Kind.POLICY, Kind.CHAIN_POLICY}
        and is_rule(plot.record(step.at), rules.get(step.at)) is False
        for step in consulted.rules
    )


def decided(plot: Plot, at: int, rules: Rules) -> bool:
    """Whether a rule or policy had a say in what became of the packet.

    The events of legacy rules do not tell, so all of them count, but for one that lets all packets
    return. Rules of nftables that go on, ends of chains and policies that accept do not.
    """
    record, rule = plot.record(at), rules.get(at)
    if record.kind == Kind.CHAIN_RULE:
        return record.verdict != Verdict.CONTINUE
    if record.kind == Kind.CHAIN_POLICY:
        return record.verdict == Verdict.DROP
    if record.kind not in MAYBE_RULES:
        return record.kind == Kind.RULE
    if rule is None or rule.text is None:
        return False
    return ("-j", "RETURN") not in _TARGET.findall(_QUOTED.sub('""', rule.text))
