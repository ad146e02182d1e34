# SPDX-License-Identifier: GPL-2.0
"""Rows of the tables of stories, steps and drops, made of stories as objects of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

Values: TypeAlias = Mapping[str, Any]
Row: TypeAlias = tuple[Any, ...]
Add: TypeAlias = Callable[[str, Row], None]
"""Takes a row of a table."""

NOT_A_STORY: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""The errors by which a line proves to be no story."""

_DROPPED: Final = b'"dropped":true'
_STORY: Final = b'"type":"story"'
"""Texts that a story has as it is written; in a string the quotation marks would be escaped."""

_CAUSES: Final = {
    "dropped_by_rule": "rule",
    "dropped_by_function": "function",
    "dropped_by_kernel": "kernel",
}
_NO_RULE: Final = (None,) * 9
_NO_SENDER: Final = (None,) * 5


class StoryRows:
    """Makes the rows of stories, but for the columns that say where these come from."""

    def __init__(self, add: Add, tables: frozenset[str]) -> None:
        """Give rows of ``tables`` to ``add``."""
        self._add = add
        self._stories = "stories" in tables
        self._steps = "steps" in tables
        self._drops = "drops" in tables
        self.numbers = 0
        """Stories and branches that have got numbers."""
        self.stories = 0
        """Stories that were taken, without branches."""

    def take(self, line: bytes) -> None:
        """Make the rows of a story, a line of JSON, and of its branches.

        Raises:
            NOT_A_STORY: it is none.
        """
        if not (self._stories or self._steps) and _DROPPED not in line and _STORY in line:
            self.pass_over(line.count(_STORY))
            return
        story = json.loads(line)
        self._of(story, None)
        self.stories += 1

    def pass_over(self, numbers: int, stories: int = 1) -> None:
        """Give ``numbers`` to stories and their branches of which no rows are made."""
        self.stories += stories
        self.numbers += numbers

    def _of(self, story: Values, parent: int | None, *, folded: bool = False) -> None:
        """Make the rows of a story, or of a branch; those that are folded are no drops."""
        steps, end = story["steps"], story["end"]
        dropped = self._drops and end["dropped"] and not folded
        number = self.numbers
        self.numbers += 1
        place = _place(story)
        if self._stories or dropped:
            headers = _headers(story["headers"])
            sender = _sender(story)
        if self._stories:
            receiver = end["socket"]
            self._add(
                "stories",
                (
                    *(number, parent, story["packet"], story["time_ns"], story["duration_ns"]),
                    *place,
                    story["in_device"],
                    *headers,
                    *sender,
                    *(end["kind"], end["dropped"], end["text"], end["hook"], end["device"]),
                    receiver["text"] if receiver else None,
                    len(steps),
                ),
            )
        if dropped:
            rule = end["rule"]
            self._add(
                "drops",
                (
                    *(number, story["time_ns"] + story["duration_ns"]),
                    *_last_place(steps, place),
                    story["in_device"],
                    *headers,
                    *sender,
                    *(_CAUSES[end["kind"]], end["text"], end["rejected"], end["hook"]),
                    *(_rule(rule) if rule else _NO_RULE),
                    end["function"] or end["drop_function"],
                    end["module"] or end["drop_module"],
                    end["drop_reason"],
                ),
            )
        if self._steps:
            for at, row in enumerate(_rows(steps, place)):
                self._add("steps", (number, at, *row))
        for step in steps:
            if step["step"] == "branch":
                self._of(step["story"], number, folded=step["folded"])


def _place(values: Values) -> Row:
    return values["netns"], values["netns_cookie"], values["netns_name"]


def _last_place(steps: list[Values], begin: Row) -> Row:
    """The last namespace that steps name."""
    return next((_place(step) for step in reversed(steps) if "netns" in step), begin)


def _headers(headers: Values) -> Row:
    return (
        *(headers["family"], headers["protocol"], headers["source"], headers["source_port"]),
        *(headers["destination"], headers["destination_port"], headers["length"]),
    )


def _sender(story: Values) -> Row:
    sender = story["sender"]
    if not sender:
        return _NO_SENDER if story["pid"] is None else (story["pid"], None, None, None, None)
    container, pod = sender["container"], sender["pod"]
    return (
        *(sender["pid"], sender["comm"], sender["unit"]),
        (container["name"] or container["id"]) if container else None,
        f"{pod['namespace']}/{pod['name']}" if pod and pod["name"] else None,
    )


def _rule(rule: Values) -> Row:
    handle = rule["rule_handle"]
    return (
        "nft" if rule["table_family"] else "legacy",
        *(rule["table_family"], rule["table"], rule["chain"], rule["rulenum"], handle),
        *(rule["rule"], rule["owner"], rule["owner_about"]),
    )


def _rows(steps: list[Values], begin: Row) -> Iterator[Row]:
    """The rows of steps, without their numbers; ``begin`` is the namespace of the story."""
    place = begin
    for step in steps:
        kind = step["step"]
        if "netns" in step:
            place = _place(step)
        if kind != "hook":
            changes = _changes(step.get("changes"))
            yield _row(kind, step["after_ns"], place, device=step.get("device"), changes=changes)
            continue
        hook = step["hook"]
        yield _row(
            "hook",
            step["after_ns"],
            place,
            device=step["out_device"] or step["in_device"],
            hook=hook,
            verdict=step["verdict"],
            changes=_changes(step["arrived"]),
        )
        for call in step["functions"]:
            yield from _call(call, place, hook)


def _call(call: Values, place: Row, hook: str) -> Iterator[Row]:
    """The rows of a function, and of the tables and rules that it consulted."""
    function = call["function"], call["module"]
    yield _row(
        "function",
        None,
        place,
        hook=hook,
        function=function,
        verdict=call["verdict"],
        changes=_changes(call["changes"]),
    )
    for one in call["consulted"]:
        table = one["backend"], one["table_family"], one["table"], one["chain"]
        yield _row(
            "table",
            None,
            place,
            hook=hook,
            function=function,
            rule=(*table, *_NO_RULE[4:]),
            verdict=one["verdict"],
        )
        for rule in one["rules"]:
            yield _row(
                "rule",
                rule["after_ns"],
                place,
                hook=hook,
                function=function,
                rule=(one["backend"], *_rule(rule)[1:]),
                verdict=rule["decision"],
                changes=_changes(rule["changes"]),
            )


def _row(
    kind: str,
    after: int | None,
    place: Row,
    *,
    device: str | None = None,
    hook: str | None = None,
    function: Row = (None, None),
    rule: Row = _NO_RULE,
    verdict: str | None = None,
    changes: str | None = None,
) -> Row:
    return (kind, after, *place, device, hook, *function, *rule, verdict, changes)


def _changes(found: list[Values] | None) -> str | None:
    if not found:
        return None
    return "; ".join(f"{one['field']} {one['before']} > {one['after']}" for one in found)
