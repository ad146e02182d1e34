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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# No imports here, which the command would wait for before its own first line: see __main__.
_homes: dict[str, str] = {}


def _public() -> dict[str, str]:
    """The public names, each with the module that it is imported from when it is first used."""
    if not _homes:
        import re  # noqa: PLC0415  # see above
        from pathlib import Path  # noqa: PLC0415  # see above

        stub = Path(__file__).with_suffix(".pyi").read_text()
        found = re.findall(r"^from (\S+) import (\w+) as \2$", stub, re.MULTILINE)
        _homes.update((name, module) for module, name in found)
    return _homes


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, or make the list of them."""
    if name == "__all__":
        value: Any = sorted(_public())
    elif name in _public():
        from importlib import import_module  # noqa: PLC0415  # see above

        value = getattr(import_module(_public()[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), "__all__", *_public()})
