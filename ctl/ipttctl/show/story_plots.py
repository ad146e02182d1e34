# SPDX-License-Identifier: GPL-2.0
"""The parts that all forms of stories share: what a form makes of a plot is made once.

Packets of the same way have the same text but for times, addresses and names. So a form makes
``Part`` s of each plot: texts, and functions that give the text for one story.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ipttctl.events.records import EventRecord
from ipttctl.show.rule import Rule
from ipttctl.show.story_rules import MAYBE_RULES, NOT_READ, Rules, rule_ats
from ipttctl.show.story_words import Peers, StorySources, device_ats, device_of
from ipttctl.stories import model
from ipttctl.stories.occurrences import Occurrence

_MOST_PLOTS: Final = 1 << 13
"""Most plots whose forms are kept."""

_NO_PEERS: Final[Peers] = {}

T = TypeVar("T")


class StepForm(ABC, Generic[T]):
    """The making of a form's parts from the steps of one plot: a method for each kind."""

    def __init__(self, plot: model.Plot, rules: Rules, peers: Peers, sources: StorySources) -> None:
        """Begin with the plot's first step."""
        self.plot = plot
        self.rules = rules
        self.peers = peers
        self.sources = sources

    def of_steps(self) -> Iterator[T]:
        """Make the parts of all steps, in order."""
        return map(self._of, self.plot.steps)

    def _of(self, step: model.StoryStep) -> T:
        match step:
            case model.Passage():
                return self.passage(step)
            case model.RouteStep():
                return self.route(step)
            case model.DeviceStep():
                return self.device(step)
            case model.SocketStep():
                return self.socket(step)
            case model.TunnelStep():
                return self.tunnel(step)
            case model.BranchStep():
                return self.branch(step)

    @abstractmethod
    def passage(self, step: model.Passage) -> T:
        """Make it of a passage through a hook."""

    @abstractmethod
    def route(self, step: model.RouteStep) -> T:
        """Make it of a way that routing chose."""

    @abstractmethod
    def device(self, step: model.DeviceStep) -> T:
        """Make it of a device that sent the packet or had it come in."""

    @abstractmethod
    def socket(self, step: model.SocketStep) -> T:
        """Make it of a socket that the packet came to."""

    @abstractmethod
    def tunnel(self, step: model.TunnelStep) -> T:
        """Make it of another outer header."""

    @abstractmethod
    def branch(self, step: model.BranchStep) -> T:
        """Make it of a copy or part that goes its own way."""


@dataclass(frozen=True, slots=True)
class _Known(Generic[T]):
    """A form that was made of a plot, and the rules and other ends of devices that it shows."""

    rules: Rules
    peers: Peers
    form: T


class PlotForms(Generic[T]):
    """The forms of plots; one is made again if the plot's rules are known otherwise by now.

    The same holds for the other ends of its devices.
    """

    def __init__(
        self, make: Callable[[model.Plot, Rules, Peers], T], sources: StorySources
    ) -> None:
        """Make forms with ``make``, of plots, and their rules and peers by ``sources``."""
        self._make = make
        self._sources = sources
        self._known: dict[model.Plot, _Known[T]] = {}

    def __getitem__(self, plot: model.Plot) -> T:
        return self._known[plot].form

    def learn(self, stories: Sequence[model.Story]) -> None:
        """Have the forms of these stories' plots, and of their branches' plots."""
        if len(self._known) > _MOST_PLOTS:
            self._known.clear()
        roots = dict.fromkeys(story.plot for story in stories)
        plots = dict.fromkeys(plot for root in roots for plot in _with_branches(root))
        peers = self._peers_of(stories) if self._sources.peer else {}
        of_rules = {plot: list(rule_ats(plot)) for plot in plots}
        named = self._rules_of(of_rules)
        for plot, ats in of_rules.items():
            found = {at: named.get(plot.occurrences[at]) for at in ats}
            ends = peers.get(plot, _NO_PEERS)
            known = self._known.get(plot)
            if known is None or known.rules != found or known.peers != ends:
                self._known[plot] = _Known(found, ends, self._make(plot, found, ends))

    def _peers_of(self, stories: Sequence[model.Story]) -> Mapping[model.Plot, Peers]:
        """The other ends of the devices of plots and their branches, at their first stories."""
        peer = self._sources.peer
        assert peer
        # of stories of the same plot the first stays
        begun = {story.plot: story.times[0] for story in reversed(stories)}
        found: dict[model.Plot, Peers] = {}
        for root, moment in begun.items():
            for plot in _with_branches(root):
                if plot not in found:
                    asked = (
                        (at, peer(device_of(plot.record(at)), moment)) for at in device_ats(plot)
                    )
                    found[plot] = {at: one for at, one in asked if one}
        return found

    def _rules_of(
        self, of_rules: Mapping[model.Plot, Sequence[int]]
    ) -> Mapping[Occurrence, Rule | None]:
        """The rules of events, each asked for once."""
        records: dict[Occurrence, EventRecord] = {}
        for plot, ats in of_rules.items():
            for at in ats:
                happened = plot.occurrences[at]
                records[happened] = happened.record
        if not self._sources.rules:
            return {one: NOT_READ for one in records if one.record.kind in MAYBE_RULES}
        if not records:
            return {}
        return dict(zip(records, self._sources.rules(list(records.values())), strict=True))


def _with_branches(plot: model.Plot) -> Iterator[model.Plot]:
    yield plot
    for branch in plot.branches:
        yield from _with_branches(branch)
