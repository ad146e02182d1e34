# SPDX-License-Identifier: GPL-2.0
"""The numbers of the frames that one process writes."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ipttctl.frames.head import FrameHead


@dataclass
class FrameNumbers:
    """Heads of frames, with numbers without gaps and the losses since the frame before.

    ``host`` and ``boot`` name the host and its boot; ``run`` is made up for each writer.
    """

    host: str
    boot: str
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    _next: Counter[str] = field(default_factory=Counter)
    _lost: dict[str, Counter[str]] = field(default_factory=dict)

    def next(self, kind: str) -> int:
        """The number of the next item of a kind."""
        return self._next[kind]

    def head(self, kind: str, count: int, form: Mapping[str, int]) -> FrameHead:
        """The head of the next frame of a kind, with ``count`` items; ``form`` is its format."""
        sequence = self._next[kind]
        self._next[kind] += count
        lost = self._lost.pop(kind, Counter())
        return FrameHead(
            kind=kind,
            host=self.host,
            boot=self.boot,
            run=self.run,
            sequence=sequence,
            count=count,
            time=time.time_ns(),
            monotonic=time.monotonic_ns(),
            lost={cause: number for cause, number in lost.items() if number},
            format=dict(form),
        )

    def lose(self, kind: str, cause: str, count: int) -> None:
        """Count items that were lost before they got numbers; the next head of the kind says so."""
        self._lost.setdefault(kind, Counter())[cause] += count

    def unsaid(self, kind: str) -> bool:
        """Whether something was lost that no head of the kind has said yet."""
        return any(self._lost.get(kind, Counter()).values())

    def throw_away(self, head: FrameHead, cause: str) -> None:
        """Count the items of a frame that is not written; they keep their numbers.

        What the head said of losses is said again by the next one.
        """
        for before, number in head.lost.items():
            self.lose(head.kind, before, number)
        self.lose(head.kind, cause, head.count)
