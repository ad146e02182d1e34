# SPDX-License-Identifier: GPL-2.0
"""Values by slot, SLOT=VALUE, and the options that say what a link has to be like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from ipttctl.errors import UsageError
from ipttctl.numbers import U32_MAX, number
from ipttctl.options import Option
from ipttproto import Slot


def by_slot(option: str, values: Sequence[str]) -> Iterator[tuple[Slot, str]]:
    """The (slot, value) of each SLOT=VALUE.

    Raises:
        UsageError: a value is not of this form, or there is no such slot.
    """
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"{option}: '{text}' is not SLOT=VALUE")
        if name.upper() not in Slot.__members__:
            known = ", ".join(slot.name.lower() for slot in Slot)
            raise UsageError(f"{option}: there is no slot '{name}'", f"slots are {known}")
        yield Slot[name.upper()], value


@dataclass(frozen=True, kw_only=True)
class ExpectedGeneration:
    """The option that makes a request fail for a link of another generation."""

    expect_generation: Annotated[
        int | None,
        Option(
            "--expect-gen",
            "only if the link has this generation",
            metavar="N",
            minimum=1,
            maximum=U32_MAX,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Expectations(ExpectedGeneration):
    """The options that make a request fail for a link of another generation or with others in it.

    ``expect_programs`` are of the form SLOT=ID.
    """

    expect_programs: Annotated[
        list[str],
        Option(
            "--expect-prog", "only if the slot holds program ID; 0 means empty", metavar="SLOT=ID"
        ),
    ] = field(default_factory=list)

    @property
    def given(self) -> bool:
        """Whether either option is given."""
        return self.expect_generation is not None or bool(self.expect_programs)

    def programs(self) -> Mapping[Slot, int]:
        """Ids of the expected programs by slot.

        Raises:
            UsageError: a value is not valid.
        """
        option = "--expect-prog"
        return {s: number(option, v, U32_MAX) for s, v in by_slot(option, self.expect_programs)}
