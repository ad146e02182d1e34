# SPDX-License-Identifier: GPL-2.0
"""Save the existing links as a state to declare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from ipttctl.link.names import is_name
from ipttctl.programs import maps as link_maps
from ipttctl.programs.choice import ProgramChoice
from ipttctl.programs.sources import (
    ById,
    OfDescriptor,
    OfProcess,
    Pinned,
    ProgramSource,
    parse_source,
    source_text,
)
from ipttctl.state.journal import RECORD, Record, RecordedLink
from ipttctl.state.maps import ARRAYS
from ipttctl.state.model import DeclaredLink, DeclaredMap, State, about
from ipttctl.state.owners import called, owners, plain_labels
from ipttctl.state.plan import claimed, is_payload, is_program
from ipttproto import Slot

#: flag of maps that programs only read (BPF_F_RDONLY_PROG): the constants of an object file
_CONSTANTS: Final = 1 << 7


@dataclass(frozen=True)
class SavedState:
    """The saved state, and the links that no file can restore, each with the reason."""

    state: State
    left_out: tuple[tuple[Link, str], ...]


def save_state(
    controller: Controller,
    *,
    maps: bool = False,
    pins: Path | None = None,
    record: Path = RECORD,
    owner: str = "",
) -> SavedState:
    """Save the persistent links as ``apply_state`` takes them: applying that changes nothing.

    With ``owner`` these are the links of that owner's file, without one all that belong to no
    owner's.

    Programs are saved by the source that apply recorded, others by id. An id is valid until the
    last link that holds the program is gone; with ``pins`` these programs are pinned in that
    directory of a BPF file system, and saved by path. The maps that apply filled are saved with
    their present contents; with ``maps``, all writable maps.

    Raises:
        ProgramError: something cannot be pinned.
        PrivilegeError: the caller may not open programs and maps (CAP_SYS_ADMIN).
    """
    links = controller.links()
    claims = claimed(Record.read(record), links)
    owned_by = owners(links, claims)
    ours = {entry.link: entry for entry in claims if owned_by[entry.link] == owner}
    saved: list[DeclaredLink] = []
    left_out: list[tuple[Link, str]] = []
    for link in links:
        whose = owned_by.get(link.id, "")
        if whose != owner:
            if not owner:
                left_out.append((link, f"it belongs to {called(whose)}: save --owner {whose}"))
        elif not link.persistent:
            left_out.append((link, f"process {link.owner_pid} ({link.owner_comm}) owns it"))
        elif link.hook.gone is not None:
            left_out.append((link, "it is at no hook any more"))
        else:
            names = {entry.name for entry in ours.values()} | {one.name for one in links}
            try:
                whole = controller.link(link.id)  # a single link comes with its filter
                saved.append(_saved(whole, ours.get(link.id), names, maps, pins))
            except LinkGoneError:
                continue
            except UsageError as error:  # a namespace with neither a name nor a process
                left_out.append((link, error.problem))
    return SavedState(State(tuple(saved)), tuple(left_out))


def _saved(
    link: Link, entry: RecordedLink | None, names: set[str], all_maps: bool, pins: Path | None
) -> DeclaredLink:
    name = link.name or (entry.name if entry else f"link-{link.id}")
    while not entry and not link.name and name in names:
        name += "-"
    known = entry.at(link) if entry else None
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
                known.constants if known else {},
                _digests(sources, known),
                link.limits or None,
            ),
            _saved_maps(link, entry, all_maps),
            # with its id, a link without a name keeps none
            None if link.name or (entry and not is_name(name)) else link.id,
            plain_labels(link) or None,
            None if entry is None or entry.keep_maps is None else tuple(entry.keep_maps),
        )


def _digests(sources: Mapping[Slot, ProgramSource], known: RecordedLink | None) -> dict[Slot, str]:
    """The declared digests of programs that are saved by the declared sources."""
    return {
        slot: known.expected[slot.name.lower()]
        for slot, source in sources.items()
        if known
        and slot.name.lower() in known.expected
        and list(source_text(source)) == list(known.programs[slot.name.lower()])
    }


def _filter_text(link: Link) -> str | None:
    if not link.filter:
        return None

    return filter_text(link.filter)


def _saved_source(slot: Slot, link: Link, known: RecordedLink | None) -> ProgramSource:
    if known and slot.name.lower() in known.programs:
        source = parse_source(*known.programs[slot.name.lower()])
        match source:
            case OfDescriptor() | OfProcess():
                pass  # such a descriptor ends with its process
            case Pinned():
                with suppress(ProgramError):
                    if is_program(source, slot, link, known, None):
                        return source
            case _:
                return source
    return ById(link.programs[slot].id)


def _pinned(source: ProgramSource, directory: Path) -> ProgramSource:
    """The pin of a program that is only known by its id, made in a directory if needed."""
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
    """The contents of a link's declared maps, and of all others if ``everything`` is set."""
    told = {} if entry is None else entry.maps
    if not told and not everything:
        return {}

    saved, seen = {}, set()
    for name, entries in told.items():
        # programs swapped in by somebody else may have no such map
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
    """The content of a map in the form of its declaration: keys alone, or with values."""
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
            # undeclared elements of arrays are left alone
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
