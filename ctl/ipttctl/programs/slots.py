# SPDX-License-Identifier: GPL-2.0
"""Values by slot, as options have them: SLOT=VALUE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ipttctl.errors import UsageError
from ipttctl.numbers import U32_MAX, number
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


def expected_programs(values: Sequence[str]) -> Mapping[Slot, int]:
    """Program ids by slot from --expect-prog.

    Raises:
        UsageError: a value is not valid.
    """
    option = "--expect-prog"
    return {s: number(option, v, U32_MAX) for s, v in by_slot(option, values)}
