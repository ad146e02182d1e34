# SPDX-License-Identifier: GPL-2.0
"""Limits of a program set: packets whose events it leaves out, all of a packet or none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from ipttctl.errors import UsageError
from ipttctl.events.records import EventRecord
from ipttctl.numbers import decimal
from ipttproto.family import limit

OFF: Final = "off"
"""The governor's text if there is none."""

_PER_SECOND: Final = re.compile(r"(\d+)(?:/s(?:econd)?)?", re.ASCII)
_PERCENT: Final = re.compile(r"(\d{1,6})(?:\.(\d))?%", re.ASCII)
#: thousandths of a CPU in a percent of it
_TENTHS: Final = 10


@dataclass(frozen=True)
class Limits:
    """Limits of the events of a program set; a limit of 0 is none.

    ``sample``: one packet of so many is reported, at random. ``rate``: packets reported in a second
    at most. The governor has two budgets: ``budget_events``, events in a second, and
    ``budget_cpu``, thousandths of the time of one CPU. Once one is exceeded, packets are left out
    until the average is below it. A rate allows bursts of a tenth of a second, a budget those of a
    second.

    What a packet's programs decide is not limited, nor is the entry program, which selects packets.
    """

    sample: int = 0
    rate: int = 0
    budget_events: int = 0
    budget_cpu: int = 0

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return self != NO_LIMITS

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The limits in a nest; missing ones are none."""
        return cls(*(attributes.get(_attribute(one.name), 0) for one in fields(cls)))

    def attributes(self) -> dict[str, int]:
        """The nest that a request carries."""
        given = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {_attribute(name): value for name, value in given if value}

    @classmethod
    def parse(
        cls, sample: str | None = None, rate: str | None = None, governor: str | None = None
    ) -> Self | None:
        """The limits that the options of the same names say; None if they are none.

        Raises:
            UsageError: a value is not valid.
        """
        found = cls(
            0 if sample is None else _sample(sample),
            0 if rate is None else _rate("--limit-rate", rate),
            *((0, 0) if governor is None else _budgets(governor)),
        )
        return found or None

    def given(self) -> dict[str, str]:
        """The options that say these limits, by their names in a file."""
        options = {}
        if self.sample:
            options["sample"] = f"1/{self.sample}"
        if self.rate:
            options["limit-rate"] = f"{self.rate}/s"
        if budgets := ",".join(self._budgets()):
            options["governor"] = budgets
        return options

    def _budgets(self) -> Iterator[str]:
        if self.budget_events:
            yield f"{self.budget_events}/s"
        if self.budget_cpu:
            percent, tenths = divmod(self.budget_cpu, _TENTHS)
            yield f"{percent}.{tenths}%" if tenths else f"{percent}%"


NO_LIMITS: Final = Limits()


@dataclass(frozen=True)
class LeftOut:
    """Packets whose events limits left out: not of the sample, over the rate, over a budget."""

    sample: int = 0
    rate: int = 0
    governor: int = 0

    @classmethod
    def from_record(cls, record: EventRecord) -> Self:
        """The packets so far that an event of kind LEFT_OUT tells, of its link."""
        return cls(record.table_handle, record.chain_handle, record.rule_handle)

    @property
    def packets(self) -> int:
        """All of them."""
        return self.sample + self.rate + self.governor

    def __add__(self, other: LeftOut) -> LeftOut:
        """Those of two links."""
        return LeftOut(
            self.sample + other.sample, self.rate + other.rate, self.governor + other.governor
        )

    def __sub__(self, before: LeftOut) -> LeftOut:
        """Those of a link since then."""
        return self + LeftOut(-before.sample, -before.rate, -before.governor)


def _attribute(name: str) -> str:
    return name.replace("_", "-")


def _sample(text: str) -> int:
    part, slash, whole = text.partition("/")
    number = decimal(whole, limit("MAX_SAMPLE"))
    if part != "1" or not slash or not number:
        raise UsageError(
            f"--sample: '{text}' is not 1/N", f"N is from 2 to {limit('MAX_SAMPLE')}: one of N"
        )
    # one of one: all
    return number if number > 1 else 0


def _rate(option: str, text: str) -> int:
    found = _PER_SECOND.fullmatch(text)
    number = decimal(found[1], limit("MAX_RATE")) if found else None
    if not number:
        raise UsageError(
            f"{option}: '{text}' is not N/s", f"N is from 1 to {limit('MAX_RATE')} a second"
        )
    return number


def _budgets(text: str) -> tuple[int, int]:
    """The events a second, and the thousandths of a CPU: ``200000/s,50%``, one of them, or off."""
    if text == OFF:
        return 0, 0
    events = cpu = 0
    for part in text.split(","):
        if found := _PERCENT.fullmatch(part):
            if cpu:
                raise UsageError(f"--governor: '{text}' has two shares of a CPU")
            cpu = int(found[1]) * _TENTHS + int(found[2] or 0)
            if not 1 <= cpu <= limit("MAX_CPU"):
                most = limit("MAX_CPU") // _TENTHS
                raise UsageError(f"--governor: {part} is not between 0.1% and {most}% of a CPU")
        elif not events:
            events = _rate("--governor", part)
        else:
            raise UsageError(f"--governor: '{text}' has two numbers of events")
    return events, cpu
