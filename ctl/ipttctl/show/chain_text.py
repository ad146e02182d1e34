# SPDX-License-Identifier: GPL-2.0
"""Chains of stories as text and as JSON: each host's part of a packet's way, and the wires."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from ipttctl.joins.chains import HostStory, Sighting, StoryChain, Wire, WireState
from ipttctl.numbers import counted
from ipttctl.show.render_json import dumps
from ipttctl.show.told_drops import has_drop
from ipttctl.show.told_story import told_lines

FORMAT: Final = 1
"""Version of the objects. Keys may be added without another one."""

NO_STORY: Final = (
    *(KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError),
    RecursionError,
)
"""The ways in which looking at a story fails that somebody made up."""

_BEHIND: Final = 6
_MOST_LINES: Final = 1000
_LONGEST: Final = 4096
"""Most lines of a story, and characters of one; no host has more to tell that is true."""


def chain_lines(chain: StoryChain, width: int = 80) -> list[str]:
    """The lines of a chain, and an empty one; to be escaped."""
    found: list[str] = []
    for place, told in enumerate(chain.stories):
        wires = [wire for wire in chain.wires if wire.end == place]
        found += [f"  {_wire_words(chain, wire)}" for wire in wires]
        found += _story_lines(told)
        found += [f"  {words}" for words in _open_words(told)]
    return [part for line in found for part in _broken(line, width)] + [""]


def chain_object(chain: StoryChain) -> dict[str, Any]:
    """A chain as an object."""
    return {
        "type": "chain",
        "format": FORMAT,
        "stories": [
            {"host": told.life[0], "boot": told.life[1], "story": told.story}
            for told in chain.stories
        ],
        "wires": [
            {
                "from": wire.begin,
                "to": wire.end,
                "out_device": wire.left.device,
                "in_device": wire.came.device,
                "least_ns": wire.least,
                "most_ns": wire.most,
            }
            for wire in chain.wires
        ],
        "open": [
            {
                "story": place,
                "way": one.mark.way.value,
                "device": one.device,
                "state": one.state.value,
                "rivals": one.rivals,
            }
            for place, told in enumerate(chain.stories)
            for one in told.sightings
            if not one.is_known
        ],
        "answers": [answer for told in _lasts(chain) if (answer := _answer(told))],
    }


def chain_json(chain: StoryChain) -> str:
    """A chain as a line of JSON. A story that is nested too deeply to be written is null."""
    found = chain_object(chain)
    return written(found, found)


def written(value: dict[str, Any], chain: dict[str, Any]) -> str:
    """The line of JSON of a chain's object, or of one that has it; of the former see above."""
    try:
        return dumps(value)
    except RecursionError:
        for one in chain["stories"]:
            try:
                # as deep as it is in the line, and some more
                dumps([[[[[[[[one]]]]]]]])
            except RecursionError:
                one["story"] = None
        return dumps(value)


def is_dropped(chain: StoryChain) -> bool:
    """Whether the packet, or a part or copy of it, is dropped on one of its hosts."""
    return any(_drops(told.story) for told in chain.stories)


def _drops(story: Any) -> bool:
    try:
        return has_drop(story)
    except NO_STORY:
        return False


def _lasts(chain: StoryChain) -> Iterator[HostStory]:
    """The stories behind which there is none."""
    begun = {wire.begin for wire in chain.wires}
    return (told for place, told in enumerate(chain.stories) if place not in begun)


def _answer(told: HostStory) -> str:
    try:
        text = str(told.story["end"]["text"])[:_LONGEST]
    except NO_STORY:
        return ""
    return "; ".join([f"{told.life[0]}: {text}", *_open_words(told)])


def _story_lines(told: HostStory) -> list[str]:
    host = told.life[0]
    try:
        found = told_lines(told.story, host, _MOST_LINES)
        return [line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..." for line in found[:-1]]
    except NO_STORY:
        return [f"{host}  a story that makes no sense"]


def _wire_words(chain: StoryChain, wire: Wire) -> str:
    ends = f"{chain.stories[wire.begin].life[0]} {_device(wire.left)}"
    ends += f" > {chain.stories[wire.end].life[0]} {_device(wire.came)}"
    if wire.least is None or wire.most is None:
        return f"wire: {ends}"
    if wire.least == wire.most:
        return f"wire: {ends}, {_time(wire.least)}"
    return f"wire: {ends}, {_time(wire.least)} to {_time(wire.most)}"


def _device(one: Sighting) -> str:
    return one.device[:_LONGEST] or "?"


def _time(nanoseconds: int) -> str:
    microseconds = nanoseconds // 1000
    return f"{microseconds} us" if microseconds < 10_000 else f"{microseconds / 1000:.1f} ms"


def _open_words(told: HostStory) -> Iterator[str]:
    """Words for the part of the packet's way from here that is not known."""
    for one in told.sightings:
        wanted = told.has_left if one.leaves else one.state is WireState.AMBIGUOUS
        if wanted and (words := _state_words(one)):
            yield words


def _state_words(one: Sighting) -> str:
    match one.state:
        case WireState.UNSEEN if one.leaves:
            return "not seen on any other traced host"
        case WireState.AMBIGUOUS if one.leaves:
            return f"ambiguous: {counted(one.rivals, 'arrival')} could be this packet"
        case WireState.AMBIGUOUS:
            return f"ambiguous: {counted(one.rivals, 'departure')} could be this packet"
        case WireState.CUT if one.leaves:
            return "cut or merged on its way (GSO, GRO): not known whether another host saw it"
        case WireState.GIVEN_UP if one.leaves:
            return "not waited for: too many stories"
    return ""


def _broken(line: str, width: int) -> list[str]:
    """A line in parts that are not wider, the later ones further to the right."""
    if len(line) <= width:
        return [line]
    indent = len(line) - len(line.lstrip())
    return textwrap.wrap(
        line.lstrip(),
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + _BEHIND),
        drop_whitespace=True,
        break_on_hyphens=False,
    )
