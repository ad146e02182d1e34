# SPDX-License-Identifier: GPL-2.0
"""The rule behind an event and the bytes that came with it, for every form of output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ipttctl.events.records import EventRecord


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as its owner would write it.

    Without a ``text``, ``why`` is the reason for that. ``syntax`` is ``iptables``, ``nft``, or
    ``raw`` for the kernel's expressions, where no program could list the rule; ``why`` then says
    why. ``owner`` is the program that wrote the rule, and ``about`` what the rule is about.
    ``chain`` and ``table`` are the whole names of its chain and table, where events cut them.
    """

    text: str | None
    why: str = ""
    syntax: str | None = None
    owner: str | None = None
    about: str | None = None
    chain: str | None = None
    table: str | None = None

    def __str__(self) -> str:
        """``rule=[...] owner=[...]``, or ``rule uncertain (WHY)``."""
        if self.text is None:
            return f"rule uncertain ({self.why})"
        owner = f" owner=[{self.owner}: {self.about}]" if self.owner else ""
        return f"rule=[{self.text}]{owner}"


RulesOf: TypeAlias = Callable[[Sequence[EventRecord]], Sequence[Rule | None]]
"""Gives the rule that each of some events names; None if it names none.

What some of the events tell of the rules of others is known for all of them.
"""

PayloadOf: TypeAlias = Callable[[EventRecord], Any]
"""Decodes the bytes that a program added to an event."""
