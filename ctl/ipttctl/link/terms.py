# SPDX-License-Identifier: GPL-2.0
"""The attributes of requests that say how a change of links is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ipttctl.errors import UsageError
from ipttctl.link.condition import Condition
from ipttctl.link.names import note_attributes
from ipttproto.family import limit

_MILLI: Final = 1000
_LONGEST: Final = limit("MAX_ROLLBACK")


def how_attributes(reason: str | None, force: bool) -> dict[str, Any]:
    """The attributes of a change for its reason, and for force."""
    return {**note_attributes(None, reason), **({"force": 1} if force else {})}


def check_rollback_after(seconds: float) -> None:
    """Check the time after which a swap is rolled back.

    Raises:
        UsageError: it is below 1 ms, or above a day.
    """
    if not 1 <= seconds * _MILLI <= _LONGEST:
        raise UsageError(
            f"there is no roll-back after {seconds} s", f"1 ms to {_LONGEST // _MILLI} s"
        )


def terms_attributes(rollback_after: float | None, guards: Iterable[Condition]) -> dict[str, Any]:
    """The attributes that have a swap wait.

    Raises:
        UsageError: there is no such time.
    """
    terms: dict[str, Any] = {}
    if rollback_after is not None:
        check_rollback_after(rollback_after)
        terms["rollback-after"] = round(rollback_after * _MILLI)
    nests = [guard.attributes() for guard in guards]
    if nests:
        terms["guard"] = nests
    return terms
