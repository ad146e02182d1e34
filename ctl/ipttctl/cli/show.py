# SPDX-License-Identifier: GPL-2.0
"""``ipttctl show``: a recording, printed as the trace would have printed it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from ipttctl.cli.event_options import EventOptions
from ipttctl.cli.groups import grouped
from ipttctl.cli.kept_options import KeptFile, KeptOptions, KeptSinceOption
from ipttctl.cli.looks import Look, event_view, story_view
from ipttctl.cli.options import ColumnsOption, Output, OutputOption, RulesOption
from ipttctl.cli.output import EventPrinter, event_columns
from ipttctl.cli.printing import lines, note
from ipttctl.cli.recorded import play, recorded_end
from ipttctl.cli.show_kept import check_shown, show_kept
from ipttctl.cli.show_rulesets import show_rulesets
from ipttctl.cli.story_options import ShownStories, StoryOptions
from ipttctl.cli.trace_options import (
    CountOption,
    PreciseOption,
    RelativeOption,
    VerboseOption,
    time_format,
)
from ipttctl.cli.view import LinkEvents
from ipttctl.errors import UsageError
from ipttctl.recordings.reader import Recording
from ipttctl.show.render_json import dumps
from ipttctl.show.story_words import StorySources
from ipttproto import JoinedBatches


@grouped
def show(
    *,
    file: KeptFile = None,
    kept: KeptOptions,
    since: KeptSinceOption = None,
    wanted: EventOptions,
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
    output: OutputOption = Output.TEXT,
) -> None:
    """Print a recording as `ipttctl trace` would have printed it, on any machine, without root.

    The options on how things look are those of `ipttctl trace`, and those that choose events are
    those of `ipttctl events`; the latter make lines, as stories need all events of their packets.
    --link chooses by id only. --netns takes the names and numbers of the recording.

    With --hub it prints the stories that the hub of a fleet keeps, from --since on (1h).

    --rulesets prints the rules of the packets' namespaces instead, with those that no packet met.

    At the end it prints the totals of the trace. Parts of the file that are damaged are passed
    over, which it says.
    """
    kept.check()
    if kept.hub:
        check_shown(
            rulesets=rulesets,
            lines=stories.lines,
            summary=stories.summary,
            patience=stories.patience,
            link=wanted.link,
            columns=columns,
            hook=wanted.of_packets,
            precise=precise,
            relative=relative,
            verbose=verbose,
            rules=rules,
        )
        show_kept(kept, file, since, drops=stories.drops, count=count, output=output)
        return
    if file is None:
        raise UsageError("no recording is given", "ipttctl show FILE")
    if since is not None:
        raise UsageError("--since is of what a hub keeps", "add --hub")
    if rulesets:
        show_rulesets(Recording.open(file), output)
        return
    look = Look(output, time_format(precise=precise, relative=relative), verbose, count)
    options = stories.options()
    chosen = bool(wanted.link) or wanted.of_packets
    if chosen and (options.drops or options.summary):
        raise UsageError("options that choose events are of lines", "leave out --drops, --summary")
    if columns is not None and not (options.lines or chosen):
        raise UsageError("--columns is of lines", "add --lines")
    shown = event_columns(columns, output)
    _show(_Asked(look, options, wanted if chosen else None, rules, shown), Recording.open(file))


@dataclass(frozen=True)
class _Asked:
    """A command line that makes sense; ``wanted`` is None unless events are chosen."""

    look: Look
    options: StoryOptions
    wanted: EventOptions | None
    rules: bool | None
    columns: tuple[str, ...] | None


def _show(asked: _Asked, recording: Recording) -> None:
    look, options, wanted, rules = asked.look, asked.options, asked.wanted, asked.rules
    tells = recording.stories and not options.lines and wanted is None
    # it is of stories where these were told
    if recording.count is not None and tells == recording.stories:
        count = recording.count if look.count is None else min(look.count, recording.count)
        look = replace(look, count=count)
    if not tells and options.of_stories_alone:
        raise UsageError(f"{recording.path} has no stories", "use --lines")
    if options.patience is None:
        options = replace(options, patience=recording.patience / 1_000_000_000)
    if look.output is Output.JSON:
        stream = recording.begin.get("stream")
        head = stream if isinstance(stream, dict) else {}
        lines([dumps({**head, "stream": "stories" if tells else "trace"} if head else {})])
    view: LinkEvents
    if tells:
        names = _Names(recording.answers.sources(rules=rules is not False))
        view = story_view(look, options, names, recording.links, lambda: None)
    else:
        shows = EventPrinter.shows_rules(rules, look.output, asked.columns)
        answers = recording.answers
        view = event_view(
            look, asked.columns, answers.names, recording.links, answers.rules if shows else None
        )
    play(recording, view, wanted)
    recorded_end(recording, view)
    for sentence in recording.damage.sentences(recording.path):
        note(sentence)


class _Names:
    """The sources of a recording, which have looked up everything."""

    def __init__(self, sources: StorySources) -> None:
        self.sources = sources

    def learn(self, events: JoinedBatches) -> None:
        """Do nothing."""
