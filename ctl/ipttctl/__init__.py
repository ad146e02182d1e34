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
    from ipttctl.bpf.collection import Collection, CollectionSpec
    from ipttctl.bpf.filters import compile_filter
    from ipttctl.bpf.maps import Map
    from ipttctl.bpf.programs import Program
    from ipttctl.cli.declared_file import read_state, state_text
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
    from ipttctl.events.records import EventRecord
    from ipttctl.families import NfFamily
    from ipttctl.hooks.nf import NfHook
    from ipttctl.link.controller import Controller
    from ipttctl.link.event_filter import EventFilter
    from ipttctl.link.losses import Losses
    from ipttctl.link.model import (
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
    from ipttctl.link.places import Place
    from ipttctl.link.streams import EventStream, LinkChangeStream
    from ipttctl.programs.choice import ProgramChoice
    from ipttctl.programs.maps import map_of, maps_of
    from ipttctl.programs.sources import open_sources, parse_source
    from ipttctl.programs.trace import TraceOptions, load_trace_programs
    from ipttctl.state import (
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
    "ipttctl.bpf.collection": ("Collection", "CollectionSpec"),
    "ipttctl.link.controller": ("Controller",),
    "ipttctl.cli.declared_file": ("read_state", "state_text"),
    "ipttctl.state": (
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
    "ipttctl.link.event_filter": ("EventFilter",),
    "ipttctl.bpf.filters": ("compile_filter",),
    "ipttctl.hooks.nf": ("NfFamily", "NfHook"),
    "ipttctl.programs.maps": ("map_of", "maps_of"),
    "ipttctl.link.losses": ("Losses",),
    "ipttctl.bpf.maps": ("Map",),
    "ipttctl.link.model": (
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
    "ipttctl.link.places": ("Place",),
    "ipttctl.programs.choice": ("ProgramChoice",),
    "ipttctl.bpf.programs": ("Program",),
    "ipttctl.events.records": ("EventRecord",),
    "ipttctl.programs.sources": ("open_sources", "parse_source"),
    "ipttctl.link.streams": ("EventStream", "LinkChangeStream"),
    "ipttctl.programs.trace": ("TraceOptions", "load_trace_programs"),
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
