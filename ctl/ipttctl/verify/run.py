# SPDX-License-Identifier: GPL-2.0
"""Cases of the differential test: the same packets under the same ruleset, without links and with.

A case is named by its vocabulary, seed and number, and can be run again by them. Namespaces are
used for many cases: a case begins with an empty ruleset and no connections.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final

from ipttctl.bpf.descriptors import Closing
from ipttctl.verify import rulesets
from ipttctl.verify.commits import Commits
from ipttctl.verify.grammar import Grammar, grammar
from ipttctl.verify.laboratory import Arrivals, Laboratory, Namespaces, one_processor
from ipttctl.verify.logs import Logs
from ipttctl.verify.netlink import Subsystem, SubsystemMessage, acknowledged
from ipttctl.verify.outcome import Outcome, collect, differences
from ipttctl.verify.packets import BACK, TAGGED, Packet, packets
from ipttctl.verify.rulesets import Ruleset
from ipttctl.verify.tables import iptables_rules
from ipttctl.verify.words import Vocabulary

Observed = Callable[[Namespaces], AbstractContextManager[object]]
"""Makes a context in which the router's packets are observed: with links in it."""

PACKETS: Final = 40
ROUNDS: Final = 6
"""How often the packets are sent while the ruleset changes."""

_REPEATS: Final = 2
"""Times that a case is repeated if its outcomes differ: a fault of the walk shows each time."""

_REPEATS_UNDER_COMMITS: Final = 12
"""Times that a case under commits is repeated.

On Linux 6.1 packets that pass while the ruleset changes sometimes come in another order, without
links too, and a set of limited size then has other elements.
"""

_FRESH: Final = 500
"""Cases until the namespaces are replaced: they remember parts of packets."""

_TRACKING: Final = "table inet tracking {\nchain unused {\nct state new\n}\n}\n"
"""A table that keeps connection tracking on: rules that need it are freed some time later."""

_TO_DEVICE: Final = re.compile(r'\b(?:dup|fwd) to "')
"""Statements of ingress and egress that send packets, or copies, out of a device."""

_CONNTRACK_DELETE: Final = 2


@dataclass(frozen=True)
class Case:
    """The name of a case."""

    vocabulary: Vocabulary
    seed: int
    number: int
    commits: bool = False

    def __str__(self) -> str:
        under = ", commits" if self.commits else ""
        return f"{self.vocabulary.value} seed {self.seed} case {self.number}{under}"

    def made(self, words: Grammar, run: int, *, bridges: bool) -> tuple[Ruleset, list[Packet]]:
        """The ruleset and the packets of the case, with identifiers for one run."""
        chance = random.Random(f"{self.vocabulary.value} {self.seed} {self.number}")
        ruleset = rulesets.ruleset(chance, words)
        sent = packets(chance, run, PACKETS, bridges=bridges)
        if ruleset.translates:
            # an answer that is none after a translation: the kernel chooses a port by chance
            sent = [packet for packet in sent if packet.label != BACK]
        if _TO_DEVICE.search(ruleset.text):
            # a tagged one that is traced at egress then has the kernel itself warn, once
            # (nf_trace_fill_ll_header)
            sent = [packet for packet in sent if packet.label != TAGGED]
        return ruleset, sent


@dataclass(frozen=True)
class Result:
    """The two outcomes of a case, and how they differ."""

    case: Case
    ruleset: Ruleset
    without: Outcome
    with_links: Outcome
    differences: tuple[str, ...] = field(default=())
    passing: tuple[str, ...] = field(default=())
    """Differences that were gone when the case was repeated."""

    def report(self) -> str:
        """The case with its first difference, the others and its ruleset, to be read by people."""
        first, *others = self.differences or ("no difference",)
        return "\n".join((f"{self.case}: {first}", *others, "", self.ruleset.text))


def cases(
    vocabulary: Vocabulary, seed: int, count: int, first: int = 0, *, commits_every: int = 5
) -> Iterator[Case]:
    """Cases by number from ``first``; in each ``commits_every``-th the ruleset changes."""
    for number in range(first, first + count):
        yield Case(vocabulary, seed, number, number % commits_every == commits_every - 1)


class Runner(Closing):
    """Runs cases of one vocabulary in namespaces of its own."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Make the first namespaces and try which words the kernel takes.

        Raises:
            IpttctlError: something that this needs is missing.
        """
        self.vocabulary = vocabulary
        self._full = vocabulary is Vocabulary.FULL
        self._used = 0
        self._runs = 0
        self._stack = ExitStack()
        self._renew()
        self.grammar = grammar(self.laboratory, vocabulary, iptables_rules() if self._full else ())

    def close(self) -> None:
        """Give up the namespaces. Closing more than once does no harm."""
        self._stack.close()

    def run(self, case: Case, observed: Observed) -> Result:
        """Run a case without links, and then within ``observed``.

        Raises:
            IpttctlError: the case cannot be run.
        """
        self._refresh()
        result = self._both(case, observed)
        passing: list[str] = []
        for _ in range(_REPEATS_UNDER_COMMITS if case.commits else _REPEATS):
            if not result.differences:
                break
            passing += result.differences
            result = self._both(case, observed)
        return replace(result, passing=tuple(passing))

    def _both(self, case: Case, observed: Observed) -> Result:
        with one_processor() as processor:
            without = self._outcome(case, lambda _: nullcontext(), processor)
            with_links = self._outcome(case, observed, processor)
        ruleset, _ = case.made(self.grammar, 0, bridges=self._full)
        found = tuple(differences(without, with_links))
        return Result(case, ruleset, without, with_links, found)

    def _refresh(self) -> None:
        """Replace namespaces that were used for many cases."""
        if self._used >= _FRESH:
            self._used = 0
            self._renew()
        self._used += 1

    def _renew(self) -> None:
        self._stack.close()
        self.laboratory = self._stack.enter_context(Laboratory(bridges=self._full))
        router = self.laboratory.namespaces.router.fileno()
        self._logs = self._stack.enter_context(Logs(router)) if self._full else None

    def _outcome(self, case: Case, observed: Observed, processor: int) -> Outcome:
        self._runs += 1
        ruleset, sent = case.made(self.grammar, self._runs, bridges=self._full)
        laboratory = self.laboratory
        with ExitStack() as stack:
            self._clear()
            self._load(ruleset)
            stack.enter_context(observed(laboratory.namespaces))
            arrivals: dict[str, list[bytes]] = {}
            messages: dict[str, list[SubsystemMessage]] = {"trace messages": [], "log messages": []}
            count = 0
            changes = self._changes(ruleset, processor) if case.commits else nullcontext(None)
            with changes as commits:
                for _ in range(ROUNDS if case.commits else 1):
                    if commits:
                        commits.wait()
                    laboratory.send(sent)
                    for place in laboratory.arrivals():
                        arrivals.setdefault(place.place, []).extend(place.frames)
                    messages["trace messages"] += laboratory.traces.received()
                    messages["log messages"] += self._logs.received() if self._logs else []
            count = commits.count if commits else 0
            return collect(
                laboratory,
                ruleset,
                [Arrivals(place, tuple(frames)) for place, frames in arrivals.items()],
                messages,
                connections=self._full,
                commits=count,
            )

    def _changes(self, ruleset: Ruleset, processor: int) -> Commits:
        return Commits(self.laboratory.namespaces.router.fileno(), ruleset, processor)

    def _clear(self) -> None:
        """Remove what the router remembers."""
        self.laboratory.nftables.load("flush ruleset\n" + (_TRACKING if self._full else ""))
        if self._full:
            self.laboratory.keep_fragments()
            request = acknowledged(Subsystem.CONNTRACK, _CONNTRACK_DELETE, 0, [])
            self.laboratory.netlink.ask(request)

    def _load(self, ruleset: Ruleset) -> None:
        self.laboratory.nftables.load(ruleset.text)
        for program, lines in (
            ("iptables-nft-restore", ruleset.iptables),
            ("ip6tables-nft-restore", ruleset.ip6tables),
        ):
            if lines:
                self.laboratory.run(program, text=lines)
