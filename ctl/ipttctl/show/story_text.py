# SPDX-License-Identifier: GPL-2.0
"""Stories as text: a heading, a line for each thing that decided or changed, and the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ipttctl.escape import Escaped, escape, word
from ipttctl.events import describe
from ipttctl.events.records import EventRecord
from ipttctl.show.event_text import BOLD, PLAIN, Moments, TimeFormat
from ipttctl.show.rule import Rule
from ipttctl.show.story_plots import PlotForms, StepForm
from ipttctl.show.story_rules import (
    NOT_READ,
    Rules,
    by_policy,
    chain_label,
    decided,
    handle_words,
    merely_accepted,
    owner_words,
    rule_label,
    table_label,
)
from ipttctl.show.story_words import (
    Part,
    Peers,
    StorySources,
    call_words,
    came_in,
    elapsed,
    end_words,
    ends_at,
    field_words,
    function_name,
    has_changes,
    hook_label,
    in_words,
    is_quiet,
    namespace_name,
    origin_words,
    packet_at,
    protocol_name,
    sent_words,
    since_words,
    untold_peers,
    verdict_words,
    way_words,
)
from ipttctl.stories import model
from ipttctl.stories.model import EndKind, PacketField, Plot, Story
from ipttctl.stories.occurrences import Headers
from ipttctl.stories.queues import queue_behind
from ipttproto import Kind, Verdict

_RED: Final = "\033[31m"
_GREEN: Final = "\033[32m"
_YELLOW: Final = "\033[33m"
_CYAN: Final = "\033[36m"

_INDENT: Final = "  "
_LABEL: Final = 22
"""Columns of what stands before a rule: its place. Stories of longer ones have a wider column."""
_WIDEST: Final = 36
"""Most columns of it: labels that are longer are followed by their texts."""

_BEHIND: Final = "rules are seen, other functions are not"

_PORTS: Final = {PacketField.SOURCE: 0, PacketField.DESTINATION: 1}
_COLOURS: Final = {EndKind.DELIVERED: _GREEN, EndKind.LEFT: _GREEN}


@dataclass(frozen=True, slots=True)
class _Line:
    """A line, or the place of a branch: ``label`` is padded, ``parts`` follow it."""

    label: str
    parts: tuple[Part, ...] = ()
    paint: str = ""
    branch: int | None = None


@dataclass(slots=True)
class _FixedLine:
    """A line of which nothing differs between packets.

    ``broken`` are its pieces, painted, by what stands before them: copies are further to the right.
    """

    line: _Line
    text: str
    broken: dict[str, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Block:
    """The lines of a plot, and the width of their labels."""

    column: int
    lines: list[_Line | _FixedLine]


class StoryText:
    """Blocks of lines, one for each story."""

    def __init__(
        self,
        width: int = 80,
        *,
        verbose: bool = False,
        colour: bool = False,
        time_format: TimeFormat = TimeFormat.CLOCK,
        sources: StorySources | None = None,
    ) -> None:
        """Break lines longer than ``width``. ``verbose`` shows every function and every rule."""
        self._width = width
        self._verbose = verbose
        self._colour = colour
        self._moments = Moments(time_format)
        self._sources = sources or StorySources()
        self._blocks = PlotForms(self._block, self._sources)

    def begin(self, moment: int) -> None:
        """Take in the time of an event (CLOCK_MONOTONIC, ns): relative times begin with the first.

        A story that is told first is not the one that began first.
        """
        self._moments.begin(moment)

    def lines(self, stories: Sequence[Story]) -> list[Escaped]:
        """The lines for stories, in their order."""
        self._blocks.learn(stories)
        moments = self._moments.texts(
            [story.times[0] for story in stories], [story.clock_offset for story in stories]
        )
        found: list[str] = []
        for story, moment in zip(stories, moments, strict=True):
            begin = moment
            if story.copy_of:
                # its original was told before, or was not seen
                begin = f"{moment}  copy or part of packet {story.copy_of}:"
            self._add(found, story, begin, "")
        return list(map(Escaped, found))

    def _block(self, plot: Plot, rules: Rules, peers: Peers) -> _Block:
        """The lines of a plot that is new, or whose rules or peers are known otherwise by now."""
        lines = _PlotText(plot, rules, peers, self._sources, verbose=self._verbose).lines()
        column = _column(lines)
        return _Block(column, list(map(_fixed, lines)))

    def _add(self, found: list[str], story: Story, moment: str, indent: str) -> None:
        """Add the lines of a story, or of a branch."""
        block = self._blocks[story.plot]
        for line in block.lines:
            if isinstance(line, _FixedLine):
                pieces = line.broken.get(indent)
                if pieces is None:
                    pieces = self._broken(line.line, line.text, block.column, indent)
                    line.broken[indent] = pieces
                found += pieces
            elif line.branch is not None:
                self._add(found, story.branches[line.branch], "copy", indent + 2 * _INDENT)
            else:
                text = "".join(
                    [part if isinstance(part, str) else part(story) for part in line.parts]
                )
                if line.label is _HEADING:
                    text = f"{moment}  {text}"
                found += self._broken(line, text, block.column, indent)

    def _broken(self, line: _Line, text: str, column: int, indent: str) -> list[str]:
        """A line in pieces that fit, if there are words that allow it."""
        # what is escaped is longer
        label, text, behind = escape(line.label), escape(text), len(indent)
        if line.label is _HEADING:
            first, rest = "", 2 * _INDENT
        elif label:
            first = f"{_INDENT}{label:<{column}}  "
            rest = _INDENT * 2
            if len(first) + len(text) + behind > self._width:
                # below the label there is room for most rules
                first, rest = f"{_INDENT}{label}  ", _INDENT * 3
        else:
            first, rest = _INDENT, 2 * _INDENT
        whole = f"{first}{text}".rstrip()
        if not (self._colour or indent) and len(whole) <= self._width:
            return [whole]
        lines: list[str] = [whole]
        if len(whole) + behind > self._width:
            lines = list(_wrapped(first, text, rest, self._width - behind))
        paint, plain = (line.paint, PLAIN) if self._colour and line.paint else ("", "")
        return [f"{indent}{paint}{piece}{plain}" for piece in lines]


_HEADING: Final = "heading"

#: where a line may end: not between a time and its unit
_SPACE: Final = re.compile(r" (?! |[um]?s after )")


def _column(lines: Iterable[_Line]) -> int:
    """The width of a story's labels."""
    labels = {len(line.label) for line in lines if line.label is not _HEADING}
    return max([_LABEL, *(length for length in labels if length <= _WIDEST)])


def _fixed(line: _Line) -> _Line | _FixedLine:
    """A line with its text, if that is the same for all packets."""
    if line.branch is not None or any(not isinstance(part, str) for part in line.parts):
        return line
    return _FixedLine(line, "".join(map(str, line.parts)))


def _wrapped(first: str, text: str, rest: str, width: int) -> Iterator[str]:
    """Pieces of a text, which stands behind ``first`` or, if its first word does not fit, below."""
    line, begun = first, False
    fits = len(first) + len(_SPACE.split(text, 1)[0]) <= width
    if not fits and first.strip() and len(rest) < len(first):
        yield first.rstrip()
        line = rest
    for one in _SPACE.split(text):
        if begun and len(line) + 1 + len(one) > width:
            yield line.rstrip()
            line = f"{rest}{one}"
        else:
            line = f"{line} {one}" if begun else f"{line}{one}"
        begun = True
    yield line


class _PlotText(StepForm[Iterator[_Line]]):
    """Makes the lines of a plot."""

    def __init__(
        self, plot: Plot, rules: Rules, peers: Peers, sources: StorySources, *, verbose: bool
    ) -> None:
        super().__init__(plot, rules, untold_peers(plot, peers), sources)
        self._verbose = verbose
        self._cookie = plot.record(0).netns_cookie
        self._accepted: list[model.Consultation] = []

    def lines(self) -> list[_Line]:
        found = [_Line(_HEADING, tuple(self._heading()), BOLD)]
        for lines in self.of_steps():
            found += lines
        found.append(self._end())
        return found

    def _heading(self) -> Iterator[Part]:
        yield lambda story: packet_at(story, 0)
        sources = self.sources
        if came_in(self.plot) and self.plot.record(0).kind != Kind.JOURNEY_COPY:
            yield f"  {in_words(self.plot.record(0), self.peers.get(0))}"
        else:
            # where a copy comes from is said already: it stands in its original's story
            yield lambda story: "" if story.copy_of else f"  {origin_words(story, sources)}"
        if sources.names or len(self.plot.cookies) > 1:
            always = len(self.plot.cookies) > 1
            yield lambda story: _named_namespace(sources, story, always=always)

    def _crossing(self, at: int) -> Iterator[_Line]:
        """A line if the packet is in another network namespace than before."""
        cookie = self.plot.record(at).netns_cookie
        if not cookie or cookie == self._cookie:
            return
        self._cookie = cookie
        if at:
            yield _Line("namespace", (partial(_namespace, self.sources, at),))

    def passage(self, step: model.Passage) -> Iterator[_Line]:
        yield from self._crossing(step.first)
        plot = self.plot
        hook = plot.record(step.first)
        for change in step.arrived:
            first = plot.record(change.after)
            by = way_words(plot, change)
            if first.kind == Kind.SPINE_FUNCTION:
                by += f", or by {function_name(first)}"
            by += ": "
            yield _Line(hook_label(hook), (by, self._change(change)))
        if self._verbose:
            yield _Line(hook_label(hook), self._devices(hook))
        for call in step.calls:
            yield from self._call(call)
        yield from self._fold()
        if (queue := queue_behind(plot, step)) is not None:
            yield _Line(hook_label(hook), (f"behind queue {queue}: {_BEHIND}",))

    def _devices(self, record: EventRecord) -> tuple[Part, ...]:
        words = [
            f"{way} {word(name)}"
            for way, name in (("in", record.in_name), ("out", record.out_name))
            if name
        ]
        return (" ".join(words),)

    def _call(self, call: model.FunctionCall) -> Iterator[_Line]:
        plot = self.plot
        # what went on may have changed it
        whole = self._verbose or has_changes(call)
        for consulted in call.consulted:
            yield from self._consultation(consulted, whole=whole)
        quiet = is_quiet(call, plot)
        if self._verbose and call.at is not None:
            yield from self._fold()
            record = plot.record(call.at)
            yield _Line("", (f"{_INDENT}{function_name(record)}: {call_words(plot, call.at)}",))
        elif call.at is not None and not quiet and not self._told(call):
            yield from self._fold()
            record = plot.record(call.at)
            verdict = "" if record.verdict == Verdict.ACCEPT else f": {call_words(plot, call.at)}"
            yield _Line(hook_label(record), (f"{function_name(record)}{verdict}",))
        yield from self._changes(call.changes)

    def _told(self, call: model.FunctionCall) -> bool:
        """Whether a line tells already what the function did: of its rules, or the end."""
        return bool(call.consulted) or call.at == self.plot.end.blame

    def _consultation(self, consulted: model.Consultation, *, whole: bool) -> Iterator[_Line]:
        """The lines of a table; ``whole``: with rules of it that only went on."""
        plot = self.plot
        if consulted.known:
            yield from self._fold()
            record = plot.record(consulted.at)
            label = chain_label(record) if record.family else f"{table_label(record)}"
            hook = hook_label(record)
            label = label if record.family else f"{label} {hook}"
            yield _Line(label, ("not consulted: connection known",))
            return
        met = whole and any(plot.record(one.at).kind == Kind.CHAIN_RULE for one in consulted.rules)
        if not self._verbose and not met and merely_accepted(plot, consulted, self.rules):
            self._accepted.append(consulted)
            return
        yield from self._fold()
        for step in consulted.rules:
            went_on = met and plot.record(step.at).kind == Kind.CHAIN_RULE
            if self._verbose or went_on or step.changes or decided(plot, step.at, self.rules):
                yield from self._rule(step)
        if consulted.end is not None and (self._verbose or self._unsaid(consulted)):
            record = plot.record(consulted.end)
            yield _Line(chain_label(record), (verdict_words(record),))

    def _unsaid(self, consulted: model.Consultation) -> bool:
        """Whether only the verdict tells of a table: its rules were not seen."""
        assert consulted.end is not None
        accepted = self.plot.record(consulted.end).verdict == Verdict.ACCEPT
        return not accepted and not consulted.rules and self.plot.end.blame != consulted.end

    def _fold(self) -> Iterator[_Line]:
        """The line of tables that merely accepted."""
        if not self._accepted:
            return
        plot, accepted = self.plot, self._accepted
        self._accepted = []
        records = [plot.record(one.at) for one in accepted]
        labels = ", ".join(
            dict.fromkeys(
                chain_label(record) if record.family else table_label(record) for record in records
            )
        )
        hook = hook_label(records[0])
        policy = all(by_policy(plot, one, self.rules) for one in accepted)
        # base chains of nft are named after what pleases their writers
        named = records[-1].family and word(records[-1].chain) == hook
        where = labels if named else f"{labels} {hook}"
        yield _Line(where, ("accepted by policy" if policy else "accepted",))

    def _rule(self, step: model.RuleStep) -> Iterator[_Line]:
        record = self.plot.record(step.at)
        rule = self.rules.get(step.at)
        text = _rule_text(record, rule)
        depth = _INDENT * min(record.depth, 4)
        yield _Line(f"{depth}{rule_label(record, rule)}", (text,), _CYAN)
        yield from self._changes(step.changes)

    def _changes(self, changes: Sequence[model.PacketChange]) -> Iterator[_Line]:
        shown = [change for change in changes if self._verbose or not change.initial]
        if shown:
            yield from self._fold()
        for change in shown:
            yield _Line(" ", (self._change(change),), _YELLOW)

    def _change(self, change: model.PacketChange) -> Part:
        if change.field is model.PacketField.CT_STATE and self._verbose:
            words = field_words(self.plot, change)
            return lambda story: f"{words}{_connection(story, change.after)}"
        if change.field not in _PORTS:
            return field_words(self.plot, change)
        side, at = _PORTS[change.field], change.after
        before = "from " if not side else ""
        return lambda story: f"> {before}{ends_at(story, at)[side]}"

    def route(self, step: model.RouteStep) -> Iterator[_Line]:
        record = self.plot.record(step.at)
        if step.forwarded or step.rerouted:
            again = "now " if step.rerouted else ""
            words = [f"{again}to {word(record.out_name) or 'no device'}"]
            if self._verbose:
                words += [field_words(self.plot, change) for change in step.changes]
            yield _Line("route", (", ".join(words),))
        elif self._verbose:
            yield _Line("route", ("to this host",))

    def device(self, step: model.DeviceStep) -> Iterator[_Line]:
        plot = self.plot
        record = plot.record(step.at)
        peer = self.peers.get(step.at)
        is_end = plot.end.kind in {EndKind.LEFT, EndKind.OPEN} and step.at == plot.end.device
        if (step.at and not (step.sent and is_end)) or self._verbose:
            if step.sent:
                yield _Line("device", (f"sent by {sent_words(record, peer)}",))
            elif step.at:
                parts: list[Part] = [in_words(record, peer)]
                if step.crossed:
                    parts += [", namespace ", partial(_namespace, self.sources, step.at)]
                yield _Line("device", tuple(parts))
        if record.netns_cookie:
            self._cookie = record.netns_cookie
        for change in step.changes:
            yield _Line("device", ("on its way here: ", self._change(change)))

    def socket(self, step: model.SocketStep) -> Iterator[_Line]:
        yield from self._crossing(step.at)
        if self._verbose:
            yield _Line("socket", ("it came to the socket",))

    def branch(self, step: model.BranchStep) -> Iterator[_Line]:
        if self._verbose or step.index not in self.plot.folded:
            yield _Line("", branch=step.index)

    def tunnel(self, step: model.TunnelStep) -> Iterator[_Line]:
        word_ = "decapsulated" if step.removed else "encapsulated"
        yield _Line("tunnel", (f"{word_}: ", lambda story: _outer(story, step.after)))

    def _end(self) -> _Line:
        plot, end = self.plot, self.plot.end
        paint = _RED if end.kind.is_drop else _COLOURS.get(end.kind, _YELLOW)
        since = since_words(plot)
        parts: list[Part] = [end_words(plot, self.rules, self.sources, self.peers)]
        if len(plot.occurrences) > 1:
            at = end.at
            parts.append(lambda story: f", {elapsed(story.times[at] - story.times[0])} {since}")
        return _Line("", tuple(parts), paint)


def _rule_text(record: EventRecord, rule: Rule | None) -> str:
    """A rule's text and owner; without it, what the rule decided."""
    if rule is None or rule is NOT_READ:
        if record.kind in {Kind.RETURN, Kind.CHAIN_END}:
            return "returns"
        return _decision(record)
    if rule.text is None:
        return f"rule uncertain ({rule.why}) {_decision(record)}".rstrip()
    owner = owner_words(rule)
    return f"{rule.text}  [{owner}]" if owner else rule.text


def _decision(record: EventRecord) -> str:
    if record.kind == Kind.POLICY:
        return "reached"
    if record.kind == Kind.CHAIN_RULE:
        return f"{handle_words(record)}: {describe.chain_decision(record)}"
    if record.kind == Kind.CHAIN_POLICY:
        return describe.chain_decision(record)
    return "matched"


def _connection(story: Story, at: int) -> str:
    """The id of the packet's connection, behind its state."""
    known = story.connection(at)
    return f" (id {known})" if known else ""


def _namespace(sources: StorySources, at: int, story: Story) -> str:
    return namespace_name(sources.names, story, at)


def _named_namespace(sources: StorySources, story: Story, *, always: bool) -> str:
    """The namespace of the first event, if it has a name or the packet leaves it."""
    record = story.plot.record(0)
    name = sources.names.name(record.netns_cookie, story.times[0]) if sources.names else None
    return f" in {word(name) if name else record.netns}" if name or always else ""


def _outer(story: Story, at: int) -> str:
    source, destination = ends_at(story, at)
    headers: Headers = story.headers[at]
    return f"{source} > {destination} proto {protocol_name(headers)}"
