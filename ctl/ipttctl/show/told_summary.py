# SPDX-License-Identifier: GPL-2.0
"""Equal stories of other hosts told once, with their number: see ``StorySummary``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from ipttctl.show.group_lines import group_lines
from ipttctl.show.story_json import FORMAT
from ipttctl.show.told_story import ToldForm, Values, told_lines
from ipttctl.show.told_way import told_way

MOST_TOLD_GROUPS: Final = 1 << 12
"""Most groups of equal stories that are told; the others are counted together."""


@dataclass(slots=True)
class _Group:
    """Equal stories of a host: the first of them, their number, and when the last ended."""

    host: str
    example: dict[str, Any]
    lines: list[str]
    last: int = 0
    count: int = 0


class ToldSummary:
    """Counts equal stories, those of each host by themselves."""

    def __init__(self, form: ToldForm) -> None:
        """Count from now on; examples are in a form."""
        self._form = form
        self._groups: dict[bytes, _Group] = {}
        self._left_out = 0

    def add(self, story: dict[str, Any], where: Values) -> None:
        """Count a story; ``where`` are the host and its boot and run.

        Raises:
            KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError, RecursionError:
                it is none.
        """
        host = where["host"]
        # values of hosts may be lists, which have no hash, and as long as hosts like
        way = repr((host, tuple(told_way(story)))).encode(errors="backslashreplace")
        key = hashlib.sha256(way).digest()
        # nothing is kept of what is none
        ended = max(0, story["time_ns"] + story["duration_ns"])
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MOST_TOLD_GROUPS:
                self._left_out += 1
                return
            found = told_lines(story, host, form=self._form)
            # a story may have such members of its own, which would be another host's
            group = self._groups[key] = _Group(host, {**where, **story, **where}, found)
        group.last = max(group.last, ended)
        group.count += 1

    def lines(self) -> list[str]:
        """Each group's number and example, and a line of totals; to be escaped."""
        groups = ((one.count, one.lines) for one in self._sorted())
        return list(group_lines(groups, self._left_out))

    def objects(self) -> list[dict[str, Any]]:
        """An object for each group."""
        return [
            {
                "type": "story_group",
                "format": FORMAT,
                "host": group.host,
                "count": group.count,
                "first_ns": group.example["time_ns"],
                "last_ns": group.last,
                "example": group.example,
            }
            for group in self._sorted()
        ]

    def _sorted(self) -> list[_Group]:
        return sorted(self._groups.values(), key=lambda group: -group.count)
