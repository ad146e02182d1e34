# SPDX-License-Identifier: GPL-2.0
"""Losses that the heads of kept frames tell, by host, without counting anything twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from ipttctl.fleet import subjects
from ipttctl.fleet.feed import UNTOLD
from ipttctl.fleet.ledger import STREAM, UNKNOWN
from ipttctl.fleet.spool import SPOOL
from ipttctl.frames.head import EVENTS, STORIES, FrameHead
from ipttctl.numbers import counted

_OF_KIND: Final = frozenset({SPOOL, STREAM, UNTOLD})
"""Causes by which frames of a kind tell of items of their own kind. By the others, those of the
kernel, frames of each kind tell of all events."""

_NESTED: Final = "nested"
_OTHER: Final = "other"
_MOST_CAUSES: Final = 32
_MOST_RUNS: Final = 1 << 14
_MOST_OF_HOST: Final = 64
"""Runs of a host that are told apart, so that what both kinds of frames tell is counted once."""

_MOST_HOSTS: Final = 16
"""Hosts of which each has a sentence."""


class RunLosses:
    """The losses of one run of an agent."""

    def __init__(self) -> None:
        self._told: dict[str, Counter[str]] = {EVENTS: Counter(), STORIES: Counter()}

    def take(self, head: FrameHead) -> None:
        """Take note of what a head says, which was not taken before."""
        told = self._told[head.kind]
        for cause, number in head.lost.items():
            # whoever speaks as a host makes causes up
            known = cause in told or len(told) < _MOST_CAUSES
            told[cause if known else _OTHER] += number

    @property
    def unread(self) -> Counter[str]:
        """Events that were lost before the agent read them, and what else it could not tell of.

        Both kinds of frames tell all of it, so that each can be read alone: of two counts the
        larger one, as frames may be missing.
        """
        found: Counter[str] = Counter()
        for told in self._told.values():
            found |= Counter({c: number for c, number in told.items() if c not in _OF_KIND})
        return found

    def away(self, kind: str) -> Counter[str]:
        """Items of a kind that bounds threw away, of the agent or its stream, or that it lost."""
        return Counter({c: number for c, number in self._told[kind].items() if c in _OF_KIND})


class KeptLosses:
    """The losses of many runs."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str, str], RunLosses] = {}
        #: the number of runs of each host, and where those of the others are counted; by its token
        self._of_hosts: Counter[str] = Counter()
        self._rest: dict[str, tuple[str, str, str]] = {}

    def take(self, head: FrameHead) -> None:
        """Take note of what the head of a frame says that comes for the first time."""
        if not head.lost:
            return
        where, token = (head.host, head.boot, head.run), subjects.host_token(head.host)
        run = self._runs.get(where)
        if run is None:
            if len(self._runs) >= _MOST_RUNS:
                where = "others", "", ""
            elif self._of_hosts[token] >= _MOST_OF_HOST:
                where = self._rest.setdefault(token, (head.host, "", ""))
            else:
                self._of_hosts[token] += 1
            run = self._runs.setdefault(where, RunLosses())
        run.take(head)

    def sentences(self) -> Iterator[str]:
        """A sentence on each host, of the last ones together."""
        hosts: dict[str, _Sum] = {}
        for (host, _, _), run in self._runs.items():
            hosts.setdefault(host, _Sum()).add(run)
        names = sorted(hosts)
        for name in names[:_MOST_HOSTS]:
            yield f"{name} lost {hosts[name]}"
        if more := names[_MOST_HOSTS:]:
            rest = _Sum()
            for name in more:
                rest.events += hosts[name].events
                rest.stories += hosts[name].stories
                rest.other += hosts[name].other
            yield f"{counted(len(more), 'other host')} lost {rest}"


class _Sum:
    """The losses of several runs, as the object of a sentence."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.stories: Counter[str] = Counter()
        self.other: Counter[str] = Counter()

    def add(self, run: RunLosses) -> None:
        """Add those of a run."""
        unread = run.unread
        for cause in (_NESTED, UNKNOWN):
            self.other[cause] += unread.pop(cause, 0)
        self.events += unread + run.away(EVENTS)
        self.stories += run.away(STORIES)

    def __str__(self) -> str:
        found = []
        for what, one, many in (
            (self.events, "event", "events"),
            (self.stories, "story", "stories"),
        ):
            if what:
                causes = ", ".join(f"{number} {cause}" for cause, number in sorted(what.items()))
                found.append(f"{counted(what.total(), one, many)} ({causes})")
        if nested := self.other[_NESTED]:
            found.append(f"{counted(nested, 'run')} of programs (nested)")
        if unknown := self.other[UNKNOWN]:
            found.append(f"what {counted(unknown, 'message')} held (unknown)")
        *first, last = found or ["nothing"]
        return f"{', '.join(first)} and {last}" if first else last
