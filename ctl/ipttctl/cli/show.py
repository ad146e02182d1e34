# SPDX-License-Identifier: GPL-2.0
"""``ipttctl show``: a recording, printed as the trace would have printed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer

from ipttctl.cli.event_options import RecordedEventOptions
from ipttctl.cli.groups import grouped
from ipttctl.cli.kept_options import KeptFile, KeptOptions, KeptSinceOption
from ipttctl.cli.live_options import LiveOptions
from ipttctl.cli.looks import Look, event_view, story_view
from ipttctl.cli.options import ColumnsOption, Output, OutputOption, RulesOption
from ipttctl.cli.output import EventPrinter, event_columns
from ipttctl.cli.printing import lines, note
from ipttctl.cli.recorded import play, recorded_end
from ipttctl.cli.recorded_choice import ChosenLines, RecordedChoice
from ipttctl.cli.show_kept import KeptLook, show_kept
from ipttctl.cli.show_rulesets import show_rulesets
from ipttctl.cli.story_options import ShownStories, StoryOptions
from ipttctl.cli.trace_options import (
    AddressOption,
    BackendOption,
    CountOption,
    FilterArgument,
    IcmpIdOption,
    Only4Option,
    Only6Option,
    PidOption,
    PortOption,
    PreciseOption,
    ProtocolOption,
    RelativeOption,
    VerboseOption,
    packet_choice,
    time_format,
)
from ipttctl.cli.trace_places import Backend
from ipttctl.cli.trace_stories import StoryView
from ipttctl.cli.view import LinkEvents
from ipttctl.errors import UsageError
from ipttctl.numbers import counted
from ipttctl.recordings.chosen import ChosenPackets
from ipttctl.recordings.excerpt import Excerpt, has_events
from ipttctl.recordings.reader import Recording
from ipttctl.show.render_json import dumps
from ipttctl.show.story_words import StorySources
from ipttctl.stories.steps import OF_NFT
from ipttproto import JoinedBatches, Kind

_OF_LEGACY: Final = frozenset({Kind.RULE, Kind.RETURN, Kind.POLICY, Kind.EXIT, Kind.KNOWN})
_OF: Final = {Backend.LEGACY: _OF_LEGACY, Backend.NFT: OF_NFT}
_OTHERS: Final = {None: frozenset(), Backend.LEGACY: OF_NFT, Backend.NFT: _OF_LEGACY}
"""Kinds of events that a trace of a back end would not have had."""

_NANO: Final = 1_000_000_000


@grouped
def show(
    *,
    file: KeptFile = None,
    expression: FilterArgument = None,
    kept: KeptOptions,
    since: KeptSinceOption = None,
    address: AddressOption = None,
    protocol: ProtocolOption = "any",
    port: PortOption = None,
    icmp_id: IcmpIdOption = None,
    pid: PidOption = None,
    only4: Only4Option = False,
    only6: Only6Option = False,
    backend: BackendOption = None,
    wanted: RecordedEventOptions,
    count: CountOption = None,
    precise: PreciseOption = False,
    relative: RelativeOption = False,
    stories: ShownStories,
    rules: RulesOption = None,
    verbose: VerboseOption = False,
    columns: ColumnsOption = None,
    rulesets: Annotated[
        bool,
        typer.Option("--rulesets", help="the whole rulesets as they were listed meanwhile"),
    ] = False,
    live: LiveOptions,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print a recording as `ipttctl trace` would have printed it, on any machine, without root.

    The options are those of `ipttctl trace`. A story is told if its packet, or a copy or part of
    it, fitted FILTER, -H, --proto, -P, --icmpid, -p, -4 and -6 as an event at one of its hooks
    shows it, in a namespace of -N, and if one of its events fits --link, --hook, --verdict, --rule
    and -N. With --lines each event has to fit by itself. Where the recording does not tell whether
    FILTER fits, as it looks at bytes that were not kept, what is left out for that is counted at
    the end. --link chooses by id only. -N takes the names and numbers of the recording.

    With --hub it prints the stories that the hub of a fleet keeps, from --since on (1h): --hosts,
    --drops and -c choose among them, and -v, -T, -t, --no-rules, --summary and --lines are about
    their looks. The hosts have decided the rest.

    --rulesets prints the rules of the packets' namespaces instead, with those that no packet met:
    of all, or of those of -N, and of --backend.

    At the end it prints the totals of the trace. Parts of the file that are damaged are passed
    over, which it says.
    """
    kept.check()
    live.check()
    packets = packet_choice(
        expression=expression,
        address=address,
        protocol=protocol,
        port=port,
        icmp_id=icmp_id,
        pid=pid,
        namespace=None,
        only4=only4,
        only6=only6,
        backend=backend,
    )
    choice = RecordedChoice(wanted, packets, both_ways=stories.both_ways)
    look = Look(output, time_format(precise=precise, relative=relative), verbose, count)
    options = stories.options()
    if columns is not None and not options.lines:
        raise UsageError("--columns is of lines", "add --lines")
    shown = event_columns(columns, output)
    of_packets = {
        "FILTER": expression,
        "-H": address,
        "--proto": protocol != "any",
        "-P": port,
        "--icmpid": icmp_id is not None,
        "-p": pid,
        "-4": only4,
        "-6": only6,
    }
    of_events = {
        "--link": wanted.link,
        "--hook": wanted.hook,
        "--verdict": wanted.verdict,
        "--rule": wanted.rule,
    }
    of_stories = {
        "--patience": stories.patience,
        "--both-ways": stories.both_ways,
        "--stop-after": stories.stop_after,
    }
    if kept.hub:
        _check("--hub", {"--rulesets": rulesets}, "the hub keeps no rulesets", "record on the host")
        told = "the hosts have told the stories already"
        _check("--hub", {**of_stories, "--backend": backend}, told, "leave it out")
        _check(
            "--hub",
            {**of_packets, **of_events, "-N": wanted.namespace},
            "stories are chosen by --hosts, --since and --drops",
            "ask `ipttctl query --hub`",
        )
        kept_look = KeptLook(look, options.lines, options.drops, options.summary, rules, shown)
        show_kept(kept, file, since, kept_look)
        return
    if file is None:
        raise UsageError("no recording is given", "ipttctl show FILE")
    if since is not None:
        raise UsageError("--since is of what a hub keeps", "add --hub")
    if rulesets:
        looks = {"--lines": options.lines, "--drops": options.drops, "--summary": options.summary}
        _check(
            "--rulesets",
            {**of_packets, **of_events, **of_stories, **looks, "-c": count is not None},
            "rulesets are printed whole",
            "choose by -N and --backend",
        )
        show_rulesets(Recording.open(file), output, wanted.namespace, backend)
        return
    _show(_Asked(look, options, choice, rules, shown), Recording.open(file))


def _check(mode: str, options: Mapping[str, object], why: str, instead: str) -> None:
    """Check that nothing is asked for that another option leaves no room for.

    Raises:
        UsageError: something is.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"{name} does not go with {mode}: {why}", instead)


@dataclass(frozen=True)
class _Asked:
    """A command line that makes sense."""

    look: Look
    options: StoryOptions
    choice: RecordedChoice
    rules: bool | None
    columns: tuple[str, ...] | None

    def excerpt(self, recording: Recording) -> Excerpt:
        """The part of a recording that a trace with these options would have been about."""
        until = None
        if self.options.stop_after is not None:
            until = recording.head.monotonic + int(self.options.stop_after * _NANO)
        return Excerpt(recording, _OTHERS[self.choice.packets.backend], until)


def _show(asked: _Asked, recording: Recording) -> None:
    look, options = asked.look, asked.options
    tells = recording.stories and not options.lines
    # it is of stories where these were told
    if recording.count is not None and tells == recording.stories:
        count = recording.count if look.count is None else min(look.count, recording.count)
        look = replace(look, count=count)
    if not tells and options.of_stories_alone:
        raise UsageError(f"{recording.path} has no stories", "use --lines")
    if options.patience is None:
        options = replace(options, patience=recording.patience / _NANO)
    asked = replace(asked, look=look, options=options)
    excerpt = asked.excerpt(recording)
    # what makes no sense is told before anything is printed
    chosen = asked.choice.stories(excerpt) if tells else asked.choice.lines(recording, look.count)
    if look.output is Output.JSON:
        stream = recording.begin.get("stream")
        head = stream if isinstance(stream, dict) else {}
        lines([dumps({**head, "stream": "stories" if tells else "trace"} if head else {})])
    if isinstance(chosen, ChosenLines):
        lines_view = _lines_view(asked, recording)
        play(excerpt, lines_view, chosen.choose)
        recorded_end(recording, lines_view)
        untold, words = chosen.untold, ("event", "events")
    else:
        view = _stories_view(asked, recording, chosen)
        play(excerpt, view)
        recorded_end(recording, view)
        untold, words = view.untold, ("story", "stories")
    if untold:
        what = counted(untold, *words)
        note(f"{what} left out: the recording does not tell whether FILTER fits")
    backend = asked.choice.packets.backend
    if backend is not None and not has_events(recording, _OF[backend]):
        note(f"{recording.path} has no events of rules of --backend {backend}")
    for sentence in recording.damage.sentences(recording.path):
        note(sentence)


def _stories_view(asked: _Asked, recording: Recording, chosen: ChosenPackets | None) -> StoryView:
    """A view that prints stories, those of chosen packets only."""
    names = _Names(recording.answers.sources(rules=asked.rules is not False))
    fits = None if chosen is None else chosen.fits
    links = recording.links
    return story_view(asked.look, asked.options, names, links, lambda: None, fits=fits)


def _lines_view(asked: _Asked, recording: Recording) -> LinkEvents:
    """A view that prints events."""
    shows = EventPrinter.shows_rules(asked.rules, asked.look.output, asked.columns)
    answers = recording.answers
    rules = answers.rules if shows else None
    return event_view(asked.look, asked.columns, answers.names, recording.links, rules)


class _Names:
    """The sources of a recording, which have looked up everything."""

    def __init__(self, sources: StorySources) -> None:
        self.sources = sources

    def learn(self, events: JoinedBatches) -> None:
        """Do nothing."""
