# SPDX-License-Identifier: GPL-2.0
"""Stories that another host told, as text: made of objects of JSON (docs/stories.md).

They are shorter than where they are told: functions that accepted a packet are left out, and what
changed it stands behind the place where it was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Final

Values = Mapping[str, Any]

_LABEL: Final = 24
_NANO: Final = 1_000_000_000


def told_lines(story: Values, host: str, most: int | None = None) -> list[str]:
    """The lines of a story of a host, and an empty one; to be escaped.

    Of more than ``most`` lines the rest is left out, and said to be.

    Raises:
        KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError, RecursionError:
            it is none.
    """
    whole = _story(story, f"{host}  ", "")
    found = list(islice(whole, most))
    if most is not None and len(found) == most and next(whole, None) is not None:
        found.append("  ... the rest is left out")
    return [*found, ""]


def _story(story: Values, before: str, indent: str) -> Iterator[str]:
    seconds, rest = divmod(story["time_ns"], _NANO)
    moment = datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
    yield f"{indent}{before}{moment}.{rest // 1000:06d}  {_headers(story['headers'])}{_from(story)}"
    below = f"{indent}  "
    for step in story["steps"]:
        for label, text in _step(step):
            yield f"{below}{label:<{_LABEL}}{text}".rstrip()
        if step["step"] == "branch" and not step["folded"]:
            yield from _story(step["story"], "", f"{below}  ")
    yield f"{below}{story['end']['text']}, {_duration(story['duration_ns'])} after it began"


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


def _step(step: Values) -> Iterator[tuple[str, str]]:
    """Labels and texts of the lines of a step."""
    kind = step["step"]
    changes = _changes(step.get("changes"))
    match kind:
        case "hook":
            yield from _hook(step)
        case "received" | "sent":
            place = f", namespace {step['netns_name'] or step['netns']}" if step["crossed"] else ""
            words = "in by" if kind == "received" else "sent by"
            yield "device", f"{words} {step['device']}{place}{changes}"
        case "route" if step["device"] or changes:
            yield "route", f"to {step['device']}{changes}" if step["device"] else changes[2:]
        case "encapsulated" | "decapsulated":
            yield "tunnel", f"{kind}: {_headers(step['headers'])}"
        case "socket":
            yield "socket", str((step["socket"] or {}).get("text") or "")
        case "branch":
            yield "branch", "the same again" if step["folded"] else ""


def _hook(step: Values) -> Iterator[tuple[str, str]]:
    if arrived := _changes(step["arrived"]):
        yield str(step["hook"]), arrived[2:]
    for call in step["functions"]:
        for consulted in call["consulted"]:
            yield from _consulted(consulted)
        changes = _changes(call["changes"])
        verdict = "" if call["verdict"] in {None, "ACCEPT"} else f": {call['verdict']}"
        if changes or (verdict and not call["consulted"]):
            yield str(step["hook"]), f"{call['function']}{verdict}{changes}"


def _consulted(consulted: Values) -> Iterator[tuple[str, str]]:
    names = [consulted["table_family"], consulted["table"]]
    begin = ("nft", *names) if consulted["backend"] == "nft" else names[1:]
    for rule in consulted["rules"]:
        place = " ".join(str(one) for one in (*begin, rule["chain"], rule["rulenum"]) if one)
        owner = f"  [{rule['owner']}: {rule['owner_about']}]" if rule.get("owner") else ""
        text = rule["rule"] or rule["decision"] or rule["kind"]
        yield place, f"{text}{owner}{_changes(rule['changes'])}"
    if not consulted["rules"] and consulted["verdict"]:
        place = " ".join(str(one) for one in (*begin, consulted["chain"]) if one)
        yield place, str(consulted["verdict"]).lower()


def _changes(found: Any) -> str:
    if not found:
        return ""
    return "; " + ", ".join(f"{one['field']} {one['before']} > {one['after']}" for one in found)


def _duration(nanoseconds: int) -> str:
    microseconds = nanoseconds // 1000
    return f"{microseconds} us" if microseconds < 10_000 else f"{microseconds / 1000:.1f} ms"
