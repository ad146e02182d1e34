# SPDX-License-Identifier: GPL-2.0
"""The runs of sources that are asked together: what two of them have would count twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from ipttctl.errors import UsageError

ENDLESS: Final = 2**63
"""The end of a run of which it is not known."""


class Run(NamedTuple):
    """A part of a run: of which process on which host, and from when until when (ns)."""

    host: str | None
    boot: str | None
    run: str | None
    began: int
    ended: int


class Runs:
    """The runs of sources so far.

    Parts of one may come from several, as a hub is exported every hour, but not the same ones.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, ...], list[tuple[Run, Path]]] = {}

    def add(self, source: Path, runs: Iterable[Run]) -> None:
        """Add those of a source.

        Raises:
            UsageError: another source has a part of one, too.
        """
        for one in runs:
            known = self._known.setdefault(one[:3], [])
            for other, where in known:
                if one.began <= other.ended and other.began <= one.ended:
                    raise UsageError(
                        f"{source} and {where} both have run {one.run} of host {one.host}, "
                        "which would count twice",
                        "ask one of them",
                    )
            known.append((one, source))
