# SPDX-License-Identifier: GPL-2.0
"""The end of an upgrade as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ipttctl.escape import word
from ipttctl.upgrade.journal import ModuleFile
from ipttctl.upgrade.steps import UpgradeOutcome

_MILLI: Final = 1000


def as_lines(outcome: UpgradeOutcome) -> list[str]:
    """The versions, the gap, and a line for each link."""
    return [*_lines(outcome)]


def _lines(outcome: UpgradeOutcome) -> Iterator[str]:
    links = outcome.links
    number = f"{len(links) or 'no'} link{'' if len(links) == 1 else 's'}"
    now = outcome.old if outcome.back else outcome.new
    yield f"loaded: version {word(now.version)}, {number} restored"
    if outcome.gaps:
        yield f"gap: {outcome.gap:.3f} s, in which packets passed without the links"
    for record in links:
        link = record.link
        name = f" name={link.name}" if link.name else ""
        gap = outcome.gaps.get(link.id)
        told = "unknown" if gap is None else f"{gap:.3f}s"
        yield f"  link={link.id} gen={link.generation} hook={link.hook}{name} gap={told}"
    for sentence in outcome.left_out:
        yield f"not kept: {sentence}"


def as_object(outcome: UpgradeOutcome | None) -> dict[str, Any]:
    """The object of JSON; without an outcome nothing was done."""
    if outcome is None:
        return {
            "upgraded": False,
            "failure": None,
            "old": None,
            "new": None,
            "gap_ms": None,
            "links": [],
            "left_out": [],
        }
    return {
        "upgraded": not outcome.back,
        "failure": outcome.back or None,
        "old": _module(outcome.old),
        "new": _module(outcome.new),
        "gap_ms": round(outcome.gap * _MILLI) if outcome.gaps else None,
        "links": [
            {
                "link": record.link.id,
                "name": record.link.name or None,
                "generation": record.link.generation,
                "gap_ms": round(outcome.gaps[record.link.id] * _MILLI)
                if record.link.id in outcome.gaps
                else None,
            }
            for record in outcome.links
        ],
        "left_out": list(outcome.left_out),
    }


def _module(file: ModuleFile) -> dict[str, str | None]:
    return {"version": file.version, "build": file.build, "file": file.origin or None}
