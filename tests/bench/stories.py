# SPDX-License-Identifier: GPL-2.0
"""Cost of telling stories, for each story, and the memory of those that are open.

In a guest whose clock counts instructions these are instructions; anywhere else they are
nanoseconds of one processor:

    make bench
    python -m tests.bench.stories

The events are in memory already, joined as ``ipttctl trace`` reads them at high rates: nine for
each packet, with two hooks, a rule, a socket and the end. They are assembled, and told as text or
JSON. The ports of packets repeat, or each packet has one of its own. The first run warms up; the
least of the others counts.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ipttctl.show.story_json import StoryJson
from ipttctl.show.story_text import StoryText
from ipttctl.show.story_words import StorySources
from ipttctl.stories.assemble import MOST_OPEN, StoryAssembler
from ipttctl.stories.model import Story
from ipttproto import JoinedBatches, Kind, parse_batch
from ipttproto.arrays import np as numpy
from tests.unit.ctl.stories.packets import flood
from tests.unit.ctl.support import batch_payload

STORIES: Final = 1_000
#: stories that are open, of which as many as there may be would take their share of them
OPEN: Final = 2_048
RUNS: Final = 3
#: events of a message, and messages that are read at a time
_MESSAGE: Final = 84
_TOGETHER: Final = 40
_WIDTH: Final = 120
#: events after which a story is told
_LAST: Final = frozenset({Kind.JOURNEY_SOCKET, Kind.JOURNEY_FREED})
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

Tell = Callable[[Sequence[Story]], Sequence[str]]


def _text() -> Tell:
    # the rules have no text: looking one up is another matter
    sources = StorySources(rules=lambda records: [None] * len(records))
    return StoryText(_WIDTH, sources=sources).lines


def _json() -> Tell:
    return StoryJson().lines


CASES: Final = (("text", _text), ("JSON", _json))
PORTS: Final = (10, 60_000)
_OWN: Final = "each packet of its own port"


def events(
    count: int, ports: int, *, first: int = 1, ended: bool = True
) -> Iterator[dict[str, Any]]:
    """The events of so many packets, one packet after the other."""
    for packet in flood(count, first):
        for one in packet.events:
            if ended or one["kind"] not in _LAST:
                yield {**one, "sport": 1024 + packet.number % ports}


def messages(made: Iterator[dict[str, Any]]) -> Iterator[JoinedBatches]:
    """The events as they are read, many messages at a time."""
    sequence = 0
    while together := [part for _ in range(_TOGETHER) if (part := list(islice(made, _MESSAGE)))]:
        batches = []
        for part in together:
            batches.append(parse_batch(batch_payload(part, sequence=sequence)))
            sequence += len(part)
        yield JoinedBatches.of(batches)


def cost(tell: Tell, read: list[JoinedBatches]) -> float:
    """The cost of a story, in ns of CPU time."""
    assembler = StoryAssembler()
    told = characters = 0
    before = time.process_time()
    for joined in read:
        stories = assembler.add_events(joined)
        told += len(stories)
        characters += sum(map(len, tell(stories)))
    stories = assembler.flush()
    told += len(stories)
    characters += sum(map(len, tell(stories)))
    spent = time.process_time() - before
    assert told == STORIES
    assert characters > 100 * told
    return spent * 1e9 / told


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def open_stories() -> float:
    """The bytes of each open story."""
    # nothing is told for its silence
    assembler = StoryAssembler(patience=1 << 60)
    some = OPEN // 16
    before = 0
    # the first ones make the room that is used again
    for first in range(1 - some, OPEN, some):
        for joined in messages(events(some, 60_000, first=first + some, ended=False)):
            assert not assembler.add_events(joined)
        if first < 0:
            gc.collect()
            before = _resident()
    assert assembler.open_stories == OPEN + some
    gc.collect()
    return (_resident() - before) / OPEN


def main() -> int:
    """Measure and print a table."""
    print(f"numpy {numpy.__version__}, Python {sys.version.split()[0]}")
    # before others leave room in the heap
    size = open_stories()
    for ports in PORTS:
        read = list(messages(events(STORIES, ports)))
        # a stream's events are gone once they are read: the collector would look at all of these
        gc.collect()
        gc.freeze()
        for name, teller in CASES:
            least = min([cost(teller(), read) for _ in range(RUNS)][1:])
            what = f"{name}, {f'packets of {ports} ports' if ports < STORIES else _OWN}"
            print(
                f"{what:44} {least:9.0f} a story, {1e9 / least:9,.0f} stories/s at 1 GHz",
                flush=True,
            )
    print(f"an open story: {size:,.0f} bytes; {MOST_OPEN:,}: {size * MOST_OPEN / 1e6:,.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
