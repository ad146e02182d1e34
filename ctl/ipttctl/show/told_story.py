# SPDX-License-Identifier: GPL-2.0
"""Stories that another host told, as text: made of objects of JSON (docs/stories.md).

They are shorter than where they are told: functions that accepted a packet are left out, and what
changed it stands behind the place where it was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from ipttctl.show.event_text import Moments, TimeFormat
from ipttctl.show.render_json import rule_values

Values = Mapping[str, Any]

_LABEL: Final = 24
_OF_RULE: Final = rule_values(None)


@dataclass(frozen=True)
class ToldForm:
    """The form of stories as text: the times of day, and whether they are told in full.

    ``verbose``: every function of a hook, and copies that met nothing.
    """

    verbose: bool = False
    moments: Moments = field(default_factory=lambda: Moments(TimeFormat.CLOCK))


def told_lines(
    story: Values, host: str, most: int | None = None, form: ToldForm | None = None
) -> list[str]:
    """The lines of a story of a host, and an empty one; to be escaped.

    Of more than ``most`` lines the rest is left out, and said to be.

    Raises:
        KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError, RecursionError:
            it is none.
    """
    whole = _Told(form or ToldForm()).story(story, f"{host}  ", "")
    found = list(islice(whole, most))
    if most is not None and len(found) == most and next(whole, None) is not None:
        found.append("  ... the rest is left out")
    return [*found, ""]


def without_rules(value: Any) -> Any:
    """A story without the texts of rules and their owners, but for the words of its end."""
    if isinstance(value, list):
        return [without_rules(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: without_rules(one) for key, one in value.items()}
    return {**found, **_OF_RULE} if "rule_syntax" in found else found


class _Told:
    """Makes the lines of a story."""

    def __init__(self, form: ToldForm) -> None:
        self._moments = form.moments
        self._verbose = form.verbose

    def story(self, story: Values, before: str, indent: str) -> Iterator[str]:
        """The lines of a story, or of a branch further to the right."""
        packet = f"{_headers(story['headers'])}{_from(story)}"
        if type(story["time_ns"]) is not int:
            raise TypeError("a time is no number")
        [moment] = self._moments.texts([story["time_ns"]], [0])
        yield f"{indent}{before}{moment}  {packet}"
        below = f"{indent}  "
        for step in story["steps"]:
            for label, text in self._step(step):
                yield f"{below}{label:<{_LABEL}}{text}".rstrip()
            if step["step"] == "branch" and (self._verbose or not step["folded"]):
                yield from self.story(step["story"], "", f"{below}  ")
        yield f"{below}{story['end']['text']}, {_duration(story['duration_ns'])} after it began"

    def _step(self, step: Values) -> Iterator[tuple[str, str]]:
        """Labels and texts of the lines of a step."""
        kind = step["step"]
        changes = _changes(step.get("changes"))
        match kind:
            case "hook":
                yield from self._hook(step)
            case "received" | "sent":
                place = (
                    f", namespace {step['netns_name'] or step['netns']}" if step["crossed"] else ""
                )
                words = "in by" if kind == "received" else "sent by"
                yield "device", f"{words} {step['device']}{place}{changes}"
            case "route" if step["device"] or changes:
                yield "route", f"to {step['device']}{changes}" if step["device"] else changes[2:]
            case "encapsulated" | "decapsulated":
                yield "tunnel", f"{kind}: {_headers(step['headers'])}"
            case "socket":
                yield "socket", str((step["socket"] or {}).get("text") or "")
            case "branch":
                folded = step["folded"] and not self._verbose
                yield "branch", "the same again" if folded else ""

    def _hook(self, step: Values) -> Iterator[tuple[str, str]]:
        if arrived := _changes(step["arrived"]):
            yield str(step["hook"]), arrived[2:]
        for call in step["functions"]:
            for consulted in call["consulted"]:
                yield from self._consulted(consulted)
            changes = _changes(call["changes"])
            accepted = call["verdict"] in {None, "ACCEPT"}
            verdict = "" if accepted else f": {call['verdict']}"
            if changes or self._verbose or (verdict and not call["consulted"]):
                yield str(step["hook"]), f"{call['function']}{verdict}{changes}"
        # of agents that say so
        if step.get("functions_unseen"):
            yield str(step["hook"]), "behind the queue: rules are seen, other functions are not"

    def _consulted(self, consulted: Values) -> Iterator[tuple[str, str]]:
        names = [consulted["table_family"], consulted["table"]]
        begin = ("nft", *names) if consulted["backend"] == "nft" else names[1:]
        for rule in consulted["rules"]:
            place = " ".join(str(one) for one in (*begin, rule["chain"], rule["rulenum"]) if one)
            owner = f"  [{rule['owner']}: {rule['owner_about']}]" if rule.get("owner") else ""
            text = rule["rule"] or rule["decision"] or rule["kind"]
            yield place, f"{text}{owner}{_changes(rule['changes'])}"
        base = " ".join(str(one) for one in (*begin, consulted["chain"]) if one)
        if consulted["verdict"] and (self._verbose or not consulted["rules"]):
            yield base, str(consulted["verdict"]).lower()
        elif consulted["connection_known"] and self._verbose:
            yield base, "not consulted: connection known"


def _headers(headers: Values) -> str:
    ends = []
    for name in ("source", "destination"):
        address, port = headers[name], headers[f"{name}_port"]
        if headers["family"] == 6 and port is not None:
            address = f"[{address}]"
        ends.append(f"{address}" if port is None else f"{address}:{port}")
    protocol = headers["protocol"] or "packet"
    return f"{protocol} {ends[0]} > {ends[1]}" if headers["source"] else str(protocol)


def _from(story: Values) -> str:
    sender = story["sender"]
    name = f"  from {sender['comm']} (pid {sender['pid']})" if sender else ""
    where = story["netns_name"] or story["netns"]
    return f"{name}{f' in {where}' if where else ''}"


def _changes(found: Any) -> str:
    if not found:
        return ""
    return "; " + ", ".join(f"{one['field']} {one['before']} > {one['after']}" for one in found)


def _duration(nanoseconds: int) -> str:
    microseconds = nanoseconds // 1000
    return f"{microseconds} us" if microseconds < 10_000 else f"{microseconds / 1000:.1f} ms"
