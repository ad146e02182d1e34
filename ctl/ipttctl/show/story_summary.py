# SPDX-License-Identifier: GPL-2.0
"""Equal stories told once, with their number: those of the same way, rules and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from ipttctl.escape import Escaped
from ipttctl.events.records import EventRecord
from ipttctl.show.group_lines import group_lines
from ipttctl.show.rule import Rule
from ipttctl.show.story_json import FORMAT, story_object
from ipttctl.show.story_rules import NOT_READ, rule_ats
from ipttctl.show.story_text import StoryText
from ipttctl.show.story_words import StorySources, came_in, socket_of
from ipttctl.stories.model import (
    EndKind,
    PacketChange,
    PacketField,
    Passage,
    Plot,
    RouteStep,
    Story,
    StoryStep,
    TunnelStep,
)
from ipttctl.stories.steps import OF_RULES
from ipttctl.system.who import Receiver
from ipttproto import Kind

MOST_GROUPS: Final = 1 << 12
"""Most groups of equal stories that are told; the others are counted together."""

_MARKS: Final = frozenset({PacketField.MARK, PacketField.CT_MARK})

#: ends whose words name the socket that the packet was at
_OF_SOCKETS: Final = frozenset({EndKind.DELIVERED, EndKind.KERNEL})

_Key: TypeAlias = tuple[object, ...]
_Asked: TypeAlias = tuple[int, int, int | None]
_Found: TypeAlias = tuple[Story, int, Receiver | None]


@dataclass(slots=True)
class StoryGroup:
    """Equal stories: their number, the first of them as an example, and when the last ended."""

    example: Story
    count: int = 0
    last: int = field(default=0)


class StorySummary:
    """Counts equal stories."""

    def __init__(self, sources: StorySources | None = None, **text_options: Any) -> None:
        """Count from now on; ``text_options`` are those of ``StoryText`` but for ``sources``."""
        self._asked = sources or StorySources()
        # a socket's holders are not known for long: examples are shown with those of the key
        self._kept: dict[_Asked, Receiver | None] = {}
        self._sources = replace(self._asked, socket=self._socket if self._asked.socket else None)
        self._text = StoryText(sources=self._sources, **text_options)
        self._groups: dict[_Key, StoryGroup] = {}
        self._of_plots: dict[tuple[Plot, _Key], StoryGroup] = {}
        self.count = 0
        """Stories so far."""
        self.left_out = 0
        """Those of groups for which there was no room."""

    def begin(self, moment: int) -> None:
        """Take in the time of an event, as ``StoryText.begin`` does."""
        self._text.begin(moment)

    def add(self, stories: Sequence[Story]) -> None:
        """Count stories."""
        for story in stories:
            self.count += 1
            sockets = [(*one, socket_of(*one, self._asked)) for one in _sockets(story)]
            shared = (_protocols(story), *(_receiver(*one) for one in sockets))
            group = self._of_plots.get((story.plot, shared)) or self._group(story, shared, sockets)
            if group is None:
                self.left_out += 1
                continue
            group.count += 1
            group.last = max(group.last, story.ended + story.clock_offset)

    def groups(self) -> list[StoryGroup]:
        """The groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: -group.count)

    def lines(self) -> list[Escaped]:
        """Each group's number and example, and a line of totals."""
        groups = ((one.count, self._text.lines([one.example])) for one in self.groups())
        return [Escaped(line) for line in group_lines(groups, self.left_out)]

    def objects(self) -> list[dict[str, Any]]:
        """An object for each group."""
        return [
            {
                "type": "story_group",
                "format": FORMAT,
                "count": group.count,
                "first_ns": group.example.began + group.example.clock_offset,
                "last_ns": group.last,
                "example": story_object(group.example, self._sources),
            }
            for group in self.groups()
        ]

    def _socket(self, inode: int, moment: int, uid: int | None) -> Receiver | None:
        """The socket of an event: of an example as it was known when its story was counted."""
        assert self._asked.socket
        asked = inode, moment, uid
        return self._kept[asked] if asked in self._kept else self._asked.socket(*asked)

    def _group(self, story: Story, shared: _Key, sockets: Sequence[_Found]) -> StoryGroup | None:
        """The group of a story, which shares this besides what its plot says; None: no room."""
        key = (shared, _key(story.plot), *self._rules(story.plot))
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MOST_GROUPS:
                return None
            group = self._groups[key] = StoryGroup(story)
            for one, at, found in sockets:
                if named := one.named.get(at):
                    asked = named.number, one.times[at], one.plot.record(at).verdict_data
                    self._kept[asked] = found
        if len(self._of_plots) > 4 * MOST_GROUPS:
            self._of_plots.clear()
        self._of_plots[story.plot, shared] = group
        return group

    def _rules(self, plot: Plot) -> _Key:
        """The texts of a plot's rules: another rule may have the number and the handle of one.

        Where no text is known the generation of the ruleset stands for it.
        """
        records = [plot.record(at) for at in rule_ats(plot)]
        found: Sequence[Rule | None] = [NOT_READ] * len(records)
        if self._sources.rules:
            found = self._sources.rules(records)
        texts = [
            record.ruleset if rule and rule.text is None else rule and rule.text
            for record, rule in zip(records, found, strict=True)
        ]
        branches = [one for at, one in enumerate(plot.branches) if at not in plot.folded]
        return (*texts, *map(self._rules, branches))


def _key(plot: Plot) -> _Key:
    """All that a group has in common: hooks, rules, functions, devices, and the end."""
    came_by = plot.record(0).in_name if came_in(plot) else None
    steps = [_step(plot, step) for step in plot.steps]
    events = [_part(one.record) for one in plot.occurrences]
    shown = tuple(
        _key(branch) for place, branch in enumerate(plot.branches) if place not in plot.folded
    )
    blame = None if plot.end.blame is None else _part(plot.record(plot.end.blame))
    end = plot.end.kind, blame, plot.end.events_lost
    return came_by, tuple(filter(None, steps)), tuple(filter(None, events)), end, shown


def _step(plot: Plot, step: StoryStep) -> _Key | None:
    """The part of a step that equal stories share, but for what its events tell."""
    match step:
        case Passage():
            hook = plot.record(step.first)
            changed = [_marked(step.arrived)]
            for call in step.calls:
                rules = (rule for one in call.consulted for rule in one.rules)
                changed += [_marked(rule.changes) for rule in rules]
                changed.append(_marked(call.changes))
            return hook.netns_cookie, hook.pf, hook.hook, *changed
        case RouteStep():
            device = plot.record(step.at).out_name if step.forwarded or step.rerouted else None
            return RouteStep, device, step.rerouted
        case TunnelStep():
            return TunnelStep, step.removed
        case _:
            return None


def _marked(changes: Sequence[PacketChange]) -> _Key:
    """The marks that were changed. Their values may be another for each packet."""
    return tuple(one.field for one in changes if one.field in _MARKS and not one.initial)


def _protocols(story: Story) -> _Key:
    """The protocols of a packet: several if tunnels are on its way."""
    headers = story.headers
    if headers.count(headers[0]) != len(headers):
        headers = tuple(dict.fromkeys(headers))
    else:
        headers = headers[:1]
    return tuple(dict.fromkeys((one.ethertype, one.protocol) for one in headers))


def _sockets(story: Story) -> Iterator[tuple[Story, int]]:
    """The events of sockets that the answers of a story and of its branches name."""
    end = story.end
    if end.kind in _OF_SOCKETS and end.socket is not None:
        yield story, end.socket
    for branch in story.shown_branches():
        yield from _sockets(branch)


def _receiver(story: Story, at: int, found: Receiver | None) -> str | int:
    """The part of a receiver that equal stories share: not which worker it is, nor which socket."""
    if found is not None and found.holders:
        return found.holders[0].role
    return story.plot.record(at).verdict_data


def _part(record: EventRecord) -> _Key | None:
    """The part of an event that equal stories share; None if it does not matter."""
    kind = record.kind
    where = kind, record.netns_cookie
    if kind in OF_RULES:
        rule = record.chain_handle, record.chain, record.rule_handle, record.rulenum
        return *where, record.family, record.table_handle, record.table, *rule, record.verdict
    if kind in {Kind.SPINE_FUNCTION, Kind.SPINE_EXIT, Kind.EXIT, Kind.CHAIN_EXIT}:
        names = record.table, record.chain
        return *where, *names, record.verdict, record.verdict_data
    if kind in {Kind.KNOWN, Kind.CHAIN_KNOWN}:
        return *where, record.table, record.chain
    if kind in {Kind.JOURNEY_SENT, Kind.JOURNEY_RECEIVED}:
        return *where, record.in_name, record.out_name
    if kind == Kind.JOURNEY_DROPPED:
        return *where, record.verdict_data, record.chain
    return None
