# SPDX-License-Identifier: GPL-2.0
"""ipttctl: run BPF programs inside netfilter through the kernel module ipttrace.

    from ipttctl import Controller, ProgramSet, Slot, TableHook

    with Controller() as controller, controller.events() as events:
        link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: fd}))
        for record in events.records(link.id):
            print(record.table, record.verdict)

The names of ``__all__`` are the public face; each is imported when it is first used.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, Final

_PUBLIC: Final = re.compile(r"^from (\S+) import (\w+) as \2$", re.MULTILINE)


def _public() -> dict[str, str]:
    """The public names, each with the module that it is imported from when it is first used."""
    stub = Path(__file__).with_suffix(".pyi").read_text()
    return {name: module for module, name in _PUBLIC.findall(stub)}


_HOME: Final = _public()
__all__ = sorted(_HOME)  # noqa: PLE0605 - of text


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
