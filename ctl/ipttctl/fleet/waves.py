# SPDX-License-Identifier: GPL-2.0
"""Waves of a roll-out: how many hosts have the new state after each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ipttctl.errors import UsageError

_WAVE: Final = re.compile(r"([0-9]{1,6})(%?)", re.ASCII)
_MOST: Final = 100


@dataclass(frozen=True)
class Waves:
    """Numbers of hosts, or percentages of them, each with those of the waves before it."""

    sizes: tuple[tuple[int, bool], ...]

    @classmethod
    def parse(cls, text: str) -> Waves:
        """Read ``1,10%,100%``: one host first, then as many as make a tenth, then all.

        Raises:
            UsageError: it is not of this form, or leaves hosts out.
        """
        sizes = []
        for part in map(str.strip, text.split(",")):
            found = _WAVE.fullmatch(part)
            if not found or not int(found[1]) or (found[2] and int(found[1]) > _MOST):
                raise UsageError(
                    f"--waves: '{part}' is no size of a wave", "write it as 1,10%,100%"
                )
            sizes.append((int(found[1]), bool(found[2])))
        if sizes[-1] != (_MOST, True):
            raise UsageError(
                f"--waves: '{text}' leaves hosts out", "the last wave has to be 100%: all of them"
            )
        return cls(tuple(sizes))

    def of(self, hosts: Sequence[str]) -> list[list[str]]:
        """The hosts of each wave; those in which none would be new are left out."""
        found = []
        done = 0
        for size, percent in self.sizes:
            # rounded up
            until = -(-len(hosts) * size // _MOST) if percent else min(size, len(hosts))
            if until > done:
                found.append(list(hosts[done:until]))
                done = until
        return found
