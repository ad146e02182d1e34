# SPDX-License-Identifier: GPL-2.0
"""What there is, as a state to declare."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.filters import filter_text
from ipttctl.bpf.maps import Map
from ipttctl.bpf.programs import Program
from ipttctl.errors import LinkGoneError, ProgramError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link
from ipttctl.programs import maps as link_maps
from ipttctl.programs.choice import ProgramChoice
from ipttctl.programs.sources import (
    ById,
    OfDescriptor,
    OfProcess,
    Pinned,
    ProgramSource,
    parse_source,
)
from ipttctl.state.journal import RECORD, Record, RecordedLink
from ipttctl.state.maps import ARRAYS
from ipttctl.state.model import DeclaredLink, DeclaredMap, State, about
from ipttctl.state.plan import claimed, is_payload, is_program
from ipttproto import Slot

#: flags of maps that programs only read (BPF_F_RDONLY_PROG): the constants of an object file
_CONSTANTS: Final = 1 << 7


@dataclass(frozen=True)
class SavedState:
    """What there is, and the links that no file can bring back, with the reason of each."""

    state: State
    left_out: tuple[tuple[Link, str], ...]


def save_state(
    controller: Controller,
    *,
    maps: bool = False,
    pins: Path | None = None,
    record: Path = RECORD,
) -> SavedState:
    """The persistent links as ``apply_state`` takes them: then nothing changes.

    Programs whose source apply remembers are saved as that, others by their ids, which end with the
    last link that holds them; with ``pins`` they are pinned in that directory of a BPF file system,
    and saved as its files. Of the maps those are saved that apply was told to fill, with what they
    hold now; with ``maps`` all that can be written.

    Raises:
        ProgramError: something cannot be pinned.
        PrivilegeError: the caller may not open programs and maps (CAP_SYS_ADMIN).
    """
    links = controller.links()
    ours = {entry.link: entry for entry in claimed(Record.read(record), links)}
    saved: list[DeclaredLink] = []
    left_out: list[tuple[Link, str]] = []
    for link in links:
        if not link.persistent:
            left_out.append((link, f"process {link.owner_pid} ({link.owner_comm}) owns it"))
        elif link.hook.gone is not None:
            left_out.append((link, "it is at no hook any more"))
        else:
            names = {entry.name for entry in ours.values()}
            try:
                whole = controller.link(link.id)  # with its filter
                saved.append(_saved(whole, ours.get(link.id), names, maps, pins))
            except LinkGoneError:
                continue
            except UsageError as error:  # a namespace without a name and a process
                left_out.append((link, error.problem))
    return SavedState(State(tuple(saved)), tuple(left_out))


def _saved(
    link: Link, entry: RecordedLink | None, names: set[str], all_maps: bool, pins: Path | None
) -> DeclaredLink:
    name = entry.name if entry else f"link-{link.id}"
    while not entry and name in names:
        name += "-"
    known = entry if entry and entry.knows(link) else None
    sources = {slot: _saved_source(slot, link, known) for slot in link.programs}
    if pins is not None:
        sources = {slot: _pinned(source, pins) for slot, source in sources.items()}
    with about(f"link {link.id}"):
        # a file has to find its namespace again
        link.hook.given()
        return DeclaredLink(
            name,
            link.hook,
            ProgramChoice(
                sources,
                known.filter if known and known.filter else _filter_text(link),
                link.cookie or None,
                _payload_name(link),
            ),
            _saved_maps(link, entry, all_maps),
            None if entry else link.id,
        )


def _filter_text(link: Link) -> str | None:
    if not link.filter:
        return None

    return filter_text(link.filter)


def _saved_source(slot: Slot, link: Link, known: RecordedLink | None) -> ProgramSource:
    if known and slot.name.lower() in known.programs:
        source = parse_source(*known.programs[slot.name.lower()])
        match source:
            case OfDescriptor() | OfProcess():
                pass  # they end with a process
            case Pinned():
                with suppress(ProgramError):
                    if is_program(source, slot, link, known, None):
                        return source
            case _:
                return source
    return ById(link.programs[slot].id)


def _pinned(source: ProgramSource, directory: Path) -> ProgramSource:
    """A program's pin in a directory, made where there is none, if it is known by its id only."""
    if not isinstance(source, ById):
        return source

    with Program.from_id(source.id) as program:
        place = directory / f"{program.id}-{program.name or 'program'}"
        if not place.exists():
            program.pin(place)
    return Pinned(str(place))


def _payload_name(link: Link) -> str | None:
    if not link.payload_map:
        return None

    with Map.from_id(link.payload_map) as found:
        name = found.name
    return name if name and is_payload(name, link) else str(link.payload_map)


def _saved_maps(link: Link, entry: RecordedLink | None, everything: bool) -> dict[str, DeclaredMap]:
    """What the declared maps of a link hold now, and if wanted all others."""
    told = {} if entry is None else entry.maps
    if not told and not everything:
        return {}

    saved, seen = {}, set()
    for name, entries in told.items():
        # programs that somebody swapped may have no such map
        with suppress(ProgramError), link_maps.map_of(link, name) as found:
            saved[name] = _as_declared(found, entries)
            seen.add(found.info.id)
    if everything:
        with link_maps.maps_of(link) as used:
            names = [one.map.name for one in used]
            for one in used:
                if one.map.info.id not in seen and _is_data(one.map):
                    alone = one.map.name and names.count(one.map.name) == 1
                    name = one.map.name if alone else str(one.map.info.id)
                    saved[name] = DeclaredMap(tuple(one.map.dump()))
    return saved


def _as_declared(found: Map, entries: Sequence[Sequence[Any]]) -> DeclaredMap:
    """What a map holds, in the form in which it was declared: keys alone, or with values."""
    shape = found.format
    listed = {shape.key_bytes(key): value for key, value in entries}
    keys_only = bool(listed) and all(value is None for value in listed.values())
    return DeclaredMap(
        tuple(
            (
                shape.key(key),
                None if keys_only or listed.get(key, 0) is None else shape.value(value),
            )
            for key, value in found.items()
            # of arrays the elements that were not declared are left alone
            if found.info.type not in ARRAYS or key in listed
        )
    )


def _is_data(found: Map) -> bool:
    kinds = (
        syscalls.MapType.PROG_ARRAY,
        syscalls.MapType.ARRAY_OF_MAPS,
        syscalls.MapType.HASH_OF_MAPS,
    )
    return (
        bool(found.info.key_size)
        and found.info.type not in kinds
        and not found.info.flags & _CONSTANTS
    )
