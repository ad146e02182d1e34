# SPDX-License-Identifier: GPL-2.0
"""The drops of a story as an object of JSON: of its packet, and of copies and parts of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def drops_in(story: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The story if it ended in a drop, and those of its shown branches that did.

    Raises:
        KeyError, TypeError, AttributeError, RecursionError: it is none.
    """
    if story["end"]["dropped"]:
        yield story
    for step in story["steps"]:
        if step["step"] == "branch" and not step["folded"]:
            yield from drops_in(step["story"])


def has_drop(story: Mapping[str, Any]) -> bool:
    """Whether the packet was dropped, or a copy or part of it that is told.

    Raises:
        KeyError, TypeError, AttributeError, RecursionError: it is none.
    """
    return any(True for _ in drops_in(story))
