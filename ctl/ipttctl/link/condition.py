# SPDX-License-Identifier: GPL-2.0
"""Conditions on the counters of a link: ``drops < 10/s for 5s min 100 packets``.

The module measures them (kmod_netlink/condition.c). Here they are read and written as text, and as
attributes of messages.

    COUNTER COMPARISON NUMBER[/PER] [for TIME] [min N [packets]]

COUNTER is a name of ``Counter``, COMPARISON one of ``<``, ``<=``, ``>`` and ``>=``. PER is a unit
of time (``s``, ``m``, ``h``), a time (``5s``) or a number of packets. ``for`` is the window: the
time, up to now, over which is measured. ``min`` is the least number of packets in it. As one word:
``drops<10/s,for=5s,min=100``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from ipttctl.durations import DURATION, UNIT, milliseconds, spelled
from ipttctl.errors import UsageError
from ipttctl.numbers import U32_MAX, decimal, known_member
from ipttproto import Comparison, Counter
from ipttproto.family import limit

_SHORTEST: Final = limit("MIN_WINDOW")
_LONGEST: Final = limit("MAX_WINDOW")
_COMPARISONS: Final = {member.doc: member for member in Comparison}
_COUNTERS: Final = {member.name.lower(): member for member in Counter}
_UPPER: Final = frozenset({Comparison.BELOW, Comparison.AT_MOST})
#: what every number meets, or none does
_POINTLESS: Final = frozenset({Comparison.BELOW, Comparison.AT_LEAST})
_CONDITION: Final = re.compile(
    rf"""
    \s* (?P<counter>[a-z]+)
    \s* (?P<comparison><=|>=|<|>)
    \s* (?P<number>\d+)
    (?: \s* / \s* (?P<per>\d+ | {DURATION} | {UNIT}) )?
    (?: (?: \s+ for \s+ | , for = ) (?P<window>{DURATION}) )?
    (?: (?: \s+ min \s+ | , min = ) (?P<minimum>\d+) (?: \s+ packets? )? )?
    \s*
    """,
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class Condition:
    """Condition on a counter of a link, counted from a swap on.

    ``threshold`` is a number in ``per_time`` ms, or in ``per_packets`` packets that reached the
    hook, or, if both are 0, in the window. ``window`` is in ms; 0 is all time since the swap.
    ``minimum`` is the least number of packets in the window: with fewer, the condition is neither
    met nor violated.

    A member that is not given is what the module takes it for: ``window`` is ``per_time``, and
    ``minimum`` is ``per_packets``, or 1.
    """

    counter: Counter | int
    comparison: Comparison | int
    threshold: int
    per_time: int = 0
    per_packets: int = 0
    window: int = field(default=-1)
    minimum: int = 0

    def __post_init__(self) -> None:
        """Fill in what is not given."""
        if self.window < 0:
            object.__setattr__(self, "window", _usual_window(self.per_time))
        if not self.minimum:
            object.__setattr__(self, "minimum", _usual_minimum(self.per_packets))

    @classmethod
    def parse(cls, text: str, called: str = "condition") -> Self:
        """Read a condition; ``called`` names it in error messages.

        Raises:
            UsageError: it is not spelled as one, is out of range, or decides nothing.
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{called}: '{text}' is not a condition",
                "write it as 'drops < 10/s', 'drops < 1/100 for 10s min 500 packets' or 'lost < 1'",
            )
        counter = _COUNTERS.get(match["counter"])
        if counter is None:
            known = ", ".join(_COUNTERS)
            raise UsageError(f"{called}: there is no counter '{match['counter']}'", f"use {known}")
        per_time, per_packets = _per(called, match["per"])
        window = match["window"]
        minimum = match["minimum"]
        made = cls(
            counter,
            _COMPARISONS[match["comparison"]],
            _number(called, match["number"], 0),
            per_time,
            per_packets,
            -1 if window is None else _time(called, window, _SHORTEST),
            0 if minimum is None else _number(called, minimum, 1),
        )
        made._check(called, text)
        return made

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The condition that a nest describes; missing attributes are 0."""
        return cls(
            known_member(Counter, attributes.get("counter", 0)),
            known_member(Comparison, attributes.get("comparison", 0)),
            attributes.get("threshold", 0),
            attributes.get("per-time", 0),
            attributes.get("per-packets", 0),
            attributes.get("window", 0),
            attributes.get("minimum", 0),
        )

    def attributes(self) -> dict[str, int]:
        """The nest that a request carries."""
        optional = {
            "per-time": self.per_time,
            "per-packets": self.per_packets,
            "window": self.window,
        }
        return {
            "counter": int(self.counter),
            "comparison": int(self.comparison),
            "threshold": self.threshold,
            **{name: value for name, value in optional.items() if value},
            "minimum": self.minimum,
        }

    def __str__(self) -> str:
        """The condition as ``parse`` reads it."""
        counter, comparison, number, window, minimum = self._texts()
        text = f"{counter} {comparison} {number}"
        if window:
            text += f" for {window}"
        return f"{text} min {minimum} packets" if minimum else text

    def word(self) -> str:
        """The condition as one word, as ``parse`` reads it too."""
        counter, comparison, number, window, minimum = self._texts()
        text = f"{counter}{comparison}{number}"
        if window:
            text += f",for={window}"
        return f"{text},min={minimum}" if minimum else text

    def _texts(self) -> tuple[str, str, str, str, str]:
        """Counter, comparison, number, window and minimum; the last two empty if they are usual."""
        counter, comparison = self.counter, self.comparison
        return (
            counter.name.lower() if isinstance(counter, Counter) else str(counter),
            comparison.doc if isinstance(comparison, Comparison) else str(comparison),
            f"{self.threshold}{self._per_text()}",
            "" if self.window == _usual_window(self.per_time) else spelled(self.window),
            "" if self.minimum == _usual_minimum(self.per_packets) else str(self.minimum),
        )

    def _per_text(self) -> str:
        if self.per_packets:
            return f"/{self.per_packets}"
        if self.per_time:
            text = spelled(self.per_time)
            return f"/{text[1:] if re.fullmatch(rf'1({UNIT})', text) else text}"
        return ""

    def _check(self, called: str, text: str) -> None:
        if not self.threshold and self.comparison in _POINTLESS:
            raise UsageError(f"{called}: '{text}' decides nothing: no counter is below 0")
        if self.comparison not in _UPPER and not self.per_packets and not self.window:
            raise UsageError(
                f"{called}: '{text}' does not say in which time the number has to be reached",
                "give it: for 30s, or 10/s",
            )


@dataclass(frozen=True)
class Violation:
    """How a condition was violated: ``count`` in ``packets`` packets and in ``time`` ms.

    ``link`` is the id of the link whose counter it was.
    """

    condition: Condition
    link: int
    count: int
    packets: int
    time: int

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any] | None) -> Self | None:
        """The violation that a nest describes; None without a nest."""
        if attributes is None:
            return None
        return cls(
            Condition.from_attributes(attributes.get("condition", {})),
            attributes.get("link", 0),
            attributes.get("count", 0),
            attributes.get("packets", 0),
            attributes.get("time", 0),
        )

    def __str__(self) -> str:
        """``drops < 10/s: 57 in 240 packets, 1.02s``."""
        return (
            f"{self.condition}: {self.count} in {self.packets} packets, {self.time / 1000:g}s, "
            f"of link {self.link}"
        )


def _usual_window(per_time: int) -> int:
    return max(per_time, _SHORTEST) if per_time else 0


def _usual_minimum(per_packets: int) -> int:
    return per_packets or 1


def _per(called: str, text: str | None) -> tuple[int, int]:
    """The time and the packets that ``/PER`` means."""
    if text is None:
        return 0, 0
    if text.isdecimal():
        return 0, _number(called, text, 1)
    return _time(called, text if text[0].isdecimal() else f"1{text}", 1), 0


def _number(called: str, text: str, minimum: int) -> int:
    value = decimal(text, U32_MAX)
    if value is None or value < minimum:
        raise UsageError(f"{called}: {text} is not between {minimum} and {U32_MAX}")
    return value


def _time(called: str, text: str, minimum: int) -> int:
    value = milliseconds(text)
    if value is None or not minimum <= value <= _LONGEST:
        shortest, longest = spelled(minimum), spelled(_LONGEST)
        raise UsageError(f"{called}: {text} is not between {shortest} and {longest}")
    return value
