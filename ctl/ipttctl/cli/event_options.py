# SPDX-License-Identifier: GPL-2.0
"""The options that choose events: ``--hook``, ``--verdict``, ``--rule`` and the like."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Final

from ipttctl.errors import UsageError
from ipttctl.events.describe import VERDICTS
from ipttctl.events.filter import EventFilter, RulePattern
from ipttctl.hooks import event_pattern, pattern_words
from ipttctl.link.names import LinkRef, parse_link
from ipttctl.options import Option
from ipttproto import Verdict

_WORDS: Final = ", ".join(pattern_words())


@dataclass(frozen=True, kw_only=True)
class EventOptions:
    """The options that choose events (see ``ipttctl.options``); each can be given repeatedly."""

    link: Annotated[
        list[str],
        Option("--link", "of this link, by id or name; repeatable", metavar="LINK"),
    ] = field(default_factory=list)
    hook: Annotated[
        list[str],
        Option("--hook", f"at {_WORDS}, or input, output... of both; repeatable", metavar="HOOK"),
    ] = field(default_factory=list)
    verdict: Annotated[
        list[str],
        Option("--verdict", "with this verdict: accept, drop...; repeatable", metavar="VERDICT"),
    ] = field(default_factory=list)
    rule: Annotated[
        list[str],
        Option(
            "--rule",
            "of this rule, chain or table; * is any; repeatable",
            metavar="TABLE[/CHAIN[/N]]",
        ),
    ] = field(default_factory=list)
    namespace: Annotated[
        list[str],
        Option(
            "--netns",
            "in this network namespace: inode number, name or path; repeatable",
            metavar="NETNS",
            short="-N",
        ),
    ] = field(default_factory=list)

    @property
    def of_packets(self) -> bool:
        """Whether an option is given that only applies to packets."""
        return bool(self.hook or self.verdict or self.rule or self.namespace)

    @property
    def links(self) -> list[LinkRef]:
        """The links that ``link`` names.

        Raises:
            UsageError: one is neither an id nor a name.
        """
        return list(map(parse_link, self.link))

    def filter(self, links: Collection[int], namespaces: Collection[int]) -> EventFilter:
        """The filter for these options. Repeating an option means OR, different options mean AND.

        ``links`` are the ids of the links that ``link`` names, ``namespaces`` the cookies of the
        namespaces that ``namespace`` names.

        Raises:
            UsageError: there is no such hook or verdict, or a rule is not of the right form.
        """
        return EventFilter(
            links=links or None,
            hooks=[event_pattern(text) for text in self.hook] or None,
            verdicts=[_verdict(name) for name in self.verdict] or None,
            rules=[RulePattern.parse(text) for text in self.rule] or None,
            namespaces=namespaces if self.namespace else None,
        )


@dataclass(frozen=True, kw_only=True)
class RecordedEventOptions(EventOptions):
    """The same options, which choose among the events of a recording."""

    link: Annotated[
        list[str],
        Option("--link", "of this link, by id; repeatable", metavar="LINK"),
    ] = field(default_factory=list)
    namespace: Annotated[
        list[str],
        Option(
            "--netns",
            "in this network namespace: a name or inode number that the recording has; repeatable",
            metavar="NETNS",
            short="-N",
        ),
    ] = field(default_factory=list)


def _verdict(name: str) -> Verdict:
    if name.upper() not in VERDICTS:
        known = ", ".join(VERDICTS).lower()
        raise UsageError(f"--verdict: there is no verdict '{name}'", f"verdicts are {known}")
    return Verdict[name.upper()]
