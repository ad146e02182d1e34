# SPDX-License-Identifier: GPL-2.0
"""Steps as objects of JSON, and as words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ipttctl.programs.sources import source_text
from ipttctl.state.model import DeclaredLink, Step


def step_object(step: Step) -> dict[str, Any]:
    """The object that ``apply`` and ``diff`` print for a step."""
    return {
        "action": step.action,
        "name": step.name,
        "link": step.link,
        "changes": list(step.changes),
        "set": dict(step.declared.programs.constants) if step.declared else {},
        "map": step.map,
        "key": step.key,
        "value": step.value,
    }


def step_text(step: Step) -> str:
    """The line for a step."""
    return " ".join(_words(step))


def _words(step: Step) -> Iterator[str]:
    yield step.action
    if step.map is not None:
        yield f"{step.name}/{step.map}"
        yield _text(step.key)
        if step.value is not None:
            yield _text(step.value)
        return
    yield step.name or "-"
    if step.link is not None:
        yield f"link={step.link}"
    if step.changes:
        yield f"changes={','.join(step.changes)}"
    if step.declared:
        yield from _declared(step.declared)


def _declared(link: DeclaredLink) -> Iterator[str]:
    for slot, source in link.programs.sources.items():
        yield f"{slot.name.lower()}={':'.join(source_text(source))}"
    for name, value in link.programs.constants.items():
        yield f"set.{name}={value if isinstance(value, str) else json.dumps(value)}"
    if link.programs.filter:
        yield f"filter='{link.programs.filter}'"
    if link.maps:
        yield f"maps={','.join(link.maps)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
