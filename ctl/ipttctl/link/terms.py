# SPDX-License-Identifier: GPL-2.0
"""The attributes of requests that say how a change of links is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ipttctl.link.condition import Condition
from ipttctl.link.names import note_attributes

_MILLI: Final = 1000


def how_attributes(reason: str | None, force: bool) -> dict[str, Any]:
    """The attributes of a change for its reason, and for force."""
    return {**note_attributes(None, reason), **({"force": 1} if force else {})}


def terms_attributes(rollback_after: float | None, guards: Iterable[Condition]) -> dict[str, Any]:
    """The attributes that have a swap wait."""
    terms: dict[str, Any] = {}
    if rollback_after is not None:
        terms["rollback-after"] = max(1, round(rollback_after * _MILLI))
    nests = [guard.attributes() for guard in guards]
    if nests:
        terms["guard"] = nests
    return terms
