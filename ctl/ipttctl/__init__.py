# SPDX-License-Identifier: GPL-2.0
"""ipttctl: run BPF programs inside netfilter through the kernel module ipttrace.

    from ipttctl import Controller, ProgramSet, Slot

    with Controller() as controller, controller.events() as events:
        link = controller.attach(ProgramSet({Slot.ENTRY: fd}))
        for record in events.records(link.id):
            print(record.table, record.verdict)

The names of ``__all__`` are the public face; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ipttctl.cli.declared_file import read_state, state_text
    from ipttctl.collection import Collection, CollectionSpec
    from ipttctl.controller import Controller
    from ipttctl.declared import (
        DeclaredLink,
        DeclaredMap,
        SavedState,
        State,
        Step,
        StepAction,
        apply_state,
        diff_state,
        save_state,
    )
    from ipttctl.errors import (
        ExpectationError,
        IpttctlError,
        KernelError,
        LinkGoneError,
        ModuleError,
        PrivilegeError,
        ProgramError,
        RefusedPrivilegeError,
        UsageError,
    )
    from ipttctl.event_filter import EventFilter
    from ipttctl.filters import compile_filter
    from ipttctl.hooks import NfFamily, NfHook
    from ipttctl.link_maps import map_of, maps_of
    from ipttctl.losses import Losses
    from ipttctl.maps import Map
    from ipttctl.objects import (
        Change,
        CpuStatus,
        HistoryEntry,
        Link,
        LinkChange,
        LinkStats,
        ModuleStatus,
        ProgramInfo,
        ProgramSet,
        SlotStats,
        Swap,
    )
    from ipttctl.places import Place
    from ipttctl.program_choice import ProgramChoice
    from ipttctl.programs import Program
    from ipttctl.records import EventRecord
    from ipttctl.sources import open_sources, parse_source
    from ipttctl.streams import EventStream, LinkChangeStream
    from ipttctl.trace_programs import TraceOptions, load_trace_programs
    from ipttproto import Action, EventBatch, Gone, Hook, Kind, Loss, NfMode, Slot

__all__ = [
    "Action",
    "Change",
    "Collection",
    "CollectionSpec",
    "Controller",
    "CpuStatus",
    "DeclaredLink",
    "DeclaredMap",
    "EventBatch",
    "EventFilter",
    "EventRecord",
    "EventStream",
    "ExpectationError",
    "Gone",
    "HistoryEntry",
    "Hook",
    "IpttctlError",
    "KernelError",
    "Kind",
    "Link",
    "LinkChange",
    "LinkChangeStream",
    "LinkGoneError",
    "LinkStats",
    "Loss",
    "Losses",
    "Map",
    "ModuleError",
    "ModuleStatus",
    "NfFamily",
    "NfHook",
    "NfMode",
    "Place",
    "PrivilegeError",
    "Program",
    "ProgramChoice",
    "ProgramError",
    "ProgramInfo",
    "ProgramSet",
    "RefusedPrivilegeError",
    "SavedState",
    "Slot",
    "SlotStats",
    "State",
    "Step",
    "StepAction",
    "Swap",
    "TraceOptions",
    "UsageError",
    "apply_state",
    "compile_filter",
    "diff_state",
    "load_trace_programs",
    "map_of",
    "maps_of",
    "open_sources",
    "parse_source",
    "read_state",
    "save_state",
    "state_text",
]

_NAMES: Final = {
    "ipttproto": ("Action", "EventBatch", "Gone", "Hook", "Kind", "Loss", "NfMode", "Slot"),
    "ipttctl.collection": ("Collection", "CollectionSpec"),
    "ipttctl.controller": ("Controller",),
    "ipttctl.cli.declared_file": ("read_state", "state_text"),
    "ipttctl.declared": (
        "DeclaredLink",
        "DeclaredMap",
        "SavedState",
        "State",
        "Step",
        "StepAction",
        "apply_state",
        "diff_state",
        "save_state",
    ),
    "ipttctl.errors": (
        "ExpectationError",
        "IpttctlError",
        "KernelError",
        "LinkGoneError",
        "ModuleError",
        "PrivilegeError",
        "ProgramError",
        "RefusedPrivilegeError",
        "UsageError",
    ),
    "ipttctl.event_filter": ("EventFilter",),
    "ipttctl.filters": ("compile_filter",),
    "ipttctl.hooks": ("NfFamily", "NfHook"),
    "ipttctl.link_maps": ("map_of", "maps_of"),
    "ipttctl.losses": ("Losses",),
    "ipttctl.maps": ("Map",),
    "ipttctl.objects": (
        "Change",
        "CpuStatus",
        "HistoryEntry",
        "Link",
        "LinkChange",
        "LinkStats",
        "ModuleStatus",
        "ProgramInfo",
        "ProgramSet",
        "SlotStats",
        "Swap",
    ),
    "ipttctl.places": ("Place",),
    "ipttctl.program_choice": ("ProgramChoice",),
    "ipttctl.programs": ("Program",),
    "ipttctl.records": ("EventRecord",),
    "ipttctl.sources": ("open_sources", "parse_source"),
    "ipttctl.streams": ("EventStream", "LinkChangeStream"),
    "ipttctl.trace_programs": ("TraceOptions", "load_trace_programs"),
}
_HOME: Final = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
