# SPDX-License-Identifier: GPL-2.0
"""The options of ``trace`` that choose between stories and lines, and those of stories."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from ipttctl.errors import UsageError
from ipttctl.options import Option
from ipttctl.stories.assemble import PATIENCE

_Lines: TypeAlias = Annotated[
    bool, Option("--lines", "a line or block for each rule and verdict, instead of stories")
]
_Drops: TypeAlias = Annotated[
    bool, Option("--drops", "only stories of packets that are dropped, or a copy of which is")
]

_NANO: Final = 1_000_000_000
_MOST_SECONDS: Final = 86_400


@dataclass(frozen=True, kw_only=True)
class StoryOptions:
    """The options on stories (see ``ipttctl.options``)."""

    lines: _Lines = False
    drops: _Drops = False
    summary: Annotated[
        bool,
        Option(
            "--summary",
            "count equal stories and tell each once: all the time on a terminal, otherwise at the "
            "end",
        ),
    ] = False
    patience: Annotated[
        float | None,
        Option(
            "--patience",
            "tell a story that has not ended once nothing was heard of its packet for so long "
            "(default: 1)",
            metavar="SECONDS",
        ),
    ] = None
    follow: Annotated[
        bool | None,
        Option(
            "--follow/--no-follow",
            "follow packets from hook to hook, or ask filter and options again at each hook "
            "(default: follow for stories, which need it; not with --lines)",
        ),
    ] = None
    both_ways: Annotated[
        bool,
        Option(
            "--both-ways",
            "follow the answers too: the other direction of the packets' connections",
        ),
    ] = False
    stop_after: Annotated[
        float | None, Option("--stop-after", "end after so much time", metavar="SECONDS")
    ] = None

    def check(self) -> None:
        """Check that the options go together.

        Raises:
            UsageError: they do not, or a time is none.
        """
        of_stories = {
            "--drops": self.drops,
            "--summary": self.summary,
            "--patience": self.patience is not None,
        }
        for name, given in of_stories.items():
            if self.lines and given:
                raise UsageError(f"{name} is of stories", "leave out --lines")
        if not self.lines and self.follow is False:
            raise UsageError("--no-follow: stories are of packets that are followed", "add --lines")
        if self.both_ways and self.lines and not self.follow:
            raise UsageError("--both-ways is of packets that are followed", "add --follow")
        for name, value in (("--patience", self.patience), ("--stop-after", self.stop_after)):
            # neither nan nor inf are
            if value is not None and not 0 < value <= _MOST_SECONDS:
                raise UsageError(
                    f"{name}: {value:g} is not a number of seconds", f"at most {_MOST_SECONDS}"
                )

    @property
    def of_stories_alone(self) -> bool:
        """Whether an option is given that lines cannot heed."""
        return (
            self.drops
            or self.summary
            or self.patience is not None
            or (self.both_ways and not self.lines)
        )

    @property
    def patience_ns(self) -> int:
        """The patience in nanoseconds."""
        return PATIENCE if self.patience is None else math.ceil(self.patience * _NANO)


@dataclass(frozen=True, kw_only=True)
class ShownStories:
    """Those of the options that are about showing what is there (see ``ipttctl.options``)."""

    lines: _Lines = False
    drops: _Drops = False
    summary: Annotated[
        bool, Option("--summary", "count equal stories and tell each once, at the end")
    ] = False
    patience: Annotated[
        float | None,
        Option(
            "--patience",
            "tell a story that has not ended once nothing was heard of its packet for so long "
            "(default: as it was recorded)",
            metavar="SECONDS",
        ),
    ] = None
    both_ways: Annotated[
        bool,
        Option(
            "--both-ways",
            "the recorded packets of their connections too, in both directions",
        ),
    ] = False
    stop_after: Annotated[
        float | None,
        Option(
            "--stop-after",
            "end so much time after the recording began",
            metavar="SECONDS",
        ),
    ] = None

    def options(self) -> StoryOptions:
        """The options on stories.

        Raises:
            UsageError: they do not go together.
        """
        if self.lines and self.both_ways:
            raise UsageError("--both-ways is of stories", "leave out --lines")
        found = StoryOptions(
            lines=self.lines,
            drops=self.drops,
            summary=self.summary,
            patience=self.patience,
            both_ways=self.both_ways,
            stop_after=self.stop_after,
        )
        found.check()
        return found
