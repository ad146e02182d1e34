# SPDX-License-Identifier: GPL-2.0
"""The way of a packet in a story that another host told: what equal stories have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

#: what equal steps have in common, by their kind; the others only have to be there
_OF_STEPS: Final[Mapping[str, Sequence[str]]] = {
    "hook": ("hook_family", "hook", "netns", "verdict", "errno"),
    "route": ("device", "rerouted"),
    "sent": ("device", "netns"),
    "received": ("device", "netns"),
}
_OF_CONSULTED: Final = ("backend", "table_family", "table", "chain", "connection_known", "verdict")
_OF_RULES: Final = ("kind", "chain", "rulenum", "rule_handle", "decision", "target", "rule")
#: ends whose words name the socket that the packet was at
_OF_SOCKETS: Final = frozenset({"delivered", "dropped_by_kernel"})
_OF_ENDS: Final = ("kind", "hook", "function", "module", "drop_reason_number", "device", "queue")


def told_way(story: Mapping[str, Any]) -> Iterator[object]:
    """The parts of a story that equal ones share, whatever their addresses and times.

    Raises:
        KeyError, TypeError, AttributeError: it is none.
    """
    yield story["netns"], story["in_device"]
    headers = story.get("headers") or {}
    yield headers.get("ethertype"), headers.get("protocol")
    for step in story["steps"]:
        kind = step["step"]
        if kind == "branch":
            if not step["folded"]:
                yield tuple(told_way(step["story"]))
            continue
        yield kind, *(step[name] for name in _OF_STEPS.get(kind, ()))
        for call in step["functions"] if kind == "hook" else ():
            yield call["function"], call["verdict"]
            for consulted in call["consulted"]:
                yield tuple(consulted[name] for name in _OF_CONSULTED)
                for rule in consulted["rules"]:
                    yield tuple(rule[name] for name in _OF_RULES)
    end = story["end"]
    yield tuple(end.get(name) for name in _OF_ENDS)
    yield tuple((end.get("rule") or {}).get(name) for name in _OF_RULES)
    if end.get("kind") in _OF_SOCKETS and end.get("socket"):
        yield _receiver(end["socket"])


def _receiver(socket: Mapping[str, Any]) -> object:
    """The part of a receiver that equal stories share: not which worker it is, nor which socket."""
    holders = socket.get("holders")
    if not holders:
        return socket.get("uid")
    first = holders[0]
    return first["text"].replace(f"pid {first['pid']}", "", 1)
