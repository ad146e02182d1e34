# SPDX-License-Identifier: GPL-2.0
"""The host, as the agent sees it: what tests, and hosts without the module, do in their own way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from ipttctl.link.condition import Condition
from ipttctl.link.losses import Losses
from ipttctl.link.model import CpuStatus
from ipttctl.stories.model import Story
from ipttproto import EventBatch, Loss


@dataclass(frozen=True)
class Facts:
    """A host as its heartbeat tells it; ``module`` is empty while the module is not loaded.

    ``within`` is the cookie of the network namespace that the agent is for; 0 while that is not
    there, None if it is for all of them. It is not told.
    """

    kernel: str
    boot: str
    version: str
    module: str = ""
    features: tuple[str, ...] = ()
    within: int | None = None


class Source(Protocol):
    """Events in batches, as ``EventStream`` has them."""

    @property
    def losses(self) -> Losses:
        """The losses so far, by cause."""

    def read(self, timeout: float | None = None) -> Sequence[EventBatch]:
        """Wait for events, at most ``timeout`` seconds."""

    def missing(self) -> Sequence[CpuStatus]:
        """How far events have come by now, if some were missed since the last call; else none."""

    def drain(self, settle: float, limit: float) -> Iterator[EventBatch]:
        """Read the events emitted until now; afterwards ``losses`` is exact."""

    @property
    def last(self) -> Sequence[CpuStatus]:
        """How far those have come that ``drain`` was to read."""

    def close(self) -> None:
        """Read no more."""


class Reached(NamedTuple):
    """How far the events of a CPU have been read."""

    cpu: int
    sequence: int
    lost: Mapping[Loss, int]


class Teller(Protocol):
    """Stories of a trace, made of its events; used by the thread that reads them."""

    def take(self, batches: Sequence[EventBatch]) -> list[Told]:
        """The stories that end with some events, which are of any links."""

    def expect(self, cpus: Sequence[Reached], now: int) -> None:
        """Take in how far events had been read when the trace began (CLOCK_MONOTONIC, ns)."""

    def overrun(self, cpus: Sequence[CpuStatus]) -> None:
        """Take in how far the CPUs' events have come, of which some were missed before."""

    def idle(self) -> list[Told]:
        """The stories that are due when nothing has come."""

    def end(self) -> list[Told]:
        """All stories that are left."""


@dataclass(frozen=True)
class Told:
    """A story, as itself and as a line of JSON."""

    story: Story
    line: str


@dataclass(frozen=True)
class Untold:
    """Packets of which a trace tells nothing: its governor left them out, or there was no room.

    ``unfollowed`` is how often there was none: a packet may count at each of its hooks.
    """

    left_out: int = 0
    unfollowed: int = 0

    def __add__(self, other: Untold) -> Untold:
        """Those of two traces."""
        return Untold(self.left_out + other.left_out, self.unfollowed + other.unfollowed)

    def at_least(self, other: Untold) -> Untold:
        """As many as are known of by one of two looks at the same trace."""
        return Untold(max(self.left_out, other.left_out), max(self.unfollowed, other.unfollowed))


class Running(Protocol):
    """A trace that runs: its links, and its stories. Links end with the process at the latest."""

    @property
    def links(self) -> frozenset[int]:
        """The ids of its links."""

    @property
    def teller(self) -> Teller:
        """Its stories."""

    @property
    def within(self) -> int | None:
        """The cookie of the only network namespace that it is about, if it is about one."""

    def look(self) -> Untold:
        """Look whether it still sees all that it should; returns the packets left out so far.

        Raises:
            IpttctlError: a link of it is gone, the module, or the namespace that it is for.
        """

    def detach(self) -> Untold:
        """Detach its links; those that somebody else detached are no error."""


@dataclass(frozen=True)
class TraceOrder:
    """A trace as it is wanted. The filter was checked to look no names up.

    Limits are as the options of ``trace`` spell them.
    """

    filter: str = ""
    both_ways: bool = False
    drops: bool = False
    governor: str = ""
    join: bytes | None = None
    """The key of the hash of payloads, if stories are to be joined with those of other hosts."""
    sample: str | None = None
    rate: str | None = None
    await_drops: bool = False
    """Tell stories without a drop, too, but not before their packets or the trace have ended."""


@dataclass(frozen=True)
class TrialTerms:
    """Terms on which swaps are made: until when they have to be confirmed, and their guards."""

    rollback: float | None = None
    guards: tuple[Condition, ...] = ()


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of a link. Others are told it, and a host may answer with any: this much is believed."""

KEPT: Final = "kept"
"""The end of a swap that was for good, or confirmed."""

ROLLED_BACK: Final = frozenset({"expired", "guard", "rolled back"})
"""Ends of swaps that nobody confirmed in time, of which a guard did not hold, or was asked for."""


@dataclass(frozen=True)
class FleetLink:
    """A link that others declared or swapped, as it is now.

    ``waits`` is whether its last swap waits, ``left`` for how many seconds yet, if it is rolled
    back by time. ``undone`` is why it was rolled back; empty if it was not. ``counters`` are those
    that guards are about, by name, over all generations. ``end`` is what became of its last swap in
    a word: ``KEPT``, which it is without any too, or one of ``ROLLED_BACK``; empty while it waits,
    or if nobody knows.
    """

    name: str
    link: Count
    generation: Count
    waits: bool = False
    left: float | None = None
    undone: str = ""
    counters: Mapping[str, Count] = field(default_factory=dict)
    end: str = ""


class AgentHost(Protocol):
    """A host, as the agent needs it. All methods raise IpttctlError.

    One thread at a time calls them, another one than that which reads the source.
    """

    def facts(self) -> Facts:
        """The host as it is now."""

    def clock(self) -> int:
        """The clock (ns) that events have their times from."""

    def source(self) -> Source:
        """Subscribe to events."""

    def links(self) -> list[dict[str, Any]]:
        """All links, as ``ipttctl links -o json`` has them."""

    def trace(self, order: TraceOrder) -> Running:
        """Attach the links of a trace."""

    def detach(self, link: int | str, reason: str) -> dict[str, Any]:
        """Detach a link."""

    def attach(self, link: Mapping[str, Any], directory: Path, reason: str) -> dict[str, Any]:
        """Attach a persistent link: an entry of ``apply``'s file, and its name."""

    def swap(
        self, link: Mapping[str, Any], directory: Path, rollback: float | None, reason: str
    ) -> dict[str, Any]:
        """Swap the programs of a link, by its name."""

    def apply(
        self, state: Mapping[str, Any], directory: Path, trial: TrialTerms, reason: str
    ) -> list[dict[str, Any]]:
        """Make the links that the fleet declares those of a file's content; the steps taken."""

    def confirm(
        self, state: Mapping[str, Any], directory: Path, reason: str
    ) -> list[dict[str, Any]]:
        """Keep the swaps that wait of the fleet's links, which have to be as in a file's content.

        What was to go goes now. Returns the steps taken.
        """

    def undo(self, state: Mapping[str, Any], directory: Path, reason: str) -> list[dict[str, Any]]:
        """Roll the fleet's swaps that wait back, and make its links those of a file's content."""

    def watched(self) -> list[FleetLink]:
        """The links that the fleet declared."""

    def swapped(self, links: Collection[int]) -> list[FleetLink]:
        """The links with these numbers that are there, whoever declared them."""

    def confirm_link(self, link: str) -> dict[str, Any]:
        """Keep the swap of a link that waits."""

    def rollback_link(self, link: str, reason: str) -> dict[str, Any]:
        """Undo the swap of a link that waits."""

    def diff(self, state: Mapping[str, Any], directory: Path) -> list[dict[str, Any]]:
        """The steps that ``apply`` would take."""
