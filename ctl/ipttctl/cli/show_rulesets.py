# SPDX-License-Identifier: GPL-2.0
"""The whole rulesets of a recording, printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines, note
from ipttctl.cli.recorded_namespaces import cookies
from ipttctl.cli.trace_places import Backend
from ipttctl.recordings.reader import RecordedRuleset, Recording
from ipttctl.show.render_json import dumps

_NANO = 1_000_000_000
_INDENT = 4 * " "


def show_rulesets(
    recording: Recording, output: Output, namespaces: Sequence[str], backend: Backend | None
) -> None:
    """Print each ruleset that was listed, with its namespace and the time of its end.

    Only those of some namespaces are, if any are named, and of a back end.

    Raises:
        UsageError: the recording has no such namespace.
    """
    form = _json if output is Output.JSON else _text
    chosen = cookies(recording, namespaces)
    none = True
    for one in recording.rulesets():
        if (not namespaces or one.netns_cookie in chosen) and backend in {None, one.backend}:
            none = False
            lines(form(recording, one))
    if none:
        of_those = " of these" if namespaces or backend else ""
        note(f"{recording.path} has no rulesets{of_those}")
    for sentence in recording.damage.sentences(recording.path):
        note(sentence)


def _text(recording: Recording, one: RecordedRuleset) -> Iterator[str]:
    name = recording.answers.names.name(one.netns_cookie, one.ended)
    where = f"{one.netns} ({name})" if name else str(one.netns)
    seconds, rest = divmod(one.time, _NANO)
    moment = datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
    yield f"# {one.table or one.backend}, namespace {where}, {moment}.{rest // 1000:06d}"
    if one.why:
        yield f"# not listed: {one.why}"
    # What others chose is escaped line by line; the tabs are the program's. A comment of a rule may
    # have several lines: indented, none of them looks like the beginning of a ruleset.
    text = one.text.rstrip("\n")
    for line in text.split("\n") if text else ():
        yield f"{_INDENT}{line.expandtabs(4)}" if line else ""
    yield ""


def _json(recording: Recording, one: RecordedRuleset) -> Iterator[str]:
    yield dumps(
        {
            "type": "ruleset",
            "netns": one.netns,
            "netns_cookie": one.netns_cookie,
            "netns_name": recording.answers.names.name(one.netns_cookie, one.ended),
            "backend": one.backend,
            "table": one.table or None,
            "time_ns": one.time,
            "began_ns": one.began,
            "ended_ns": one.ended,
            "text": one.text,
            "why": one.why or None,
        }
    )
