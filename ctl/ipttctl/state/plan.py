# SPDX-License-Identifier: GPL-2.0
"""The plan that turns existing links into the declared ones.

A declared link matches an existing link at the declared place if apply made that under the same
name, if the entry gives its id, or if it has that name in the module; otherwise it is made. Only
persistent links are considered. Links that apply made and that are not declared any more are
removed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ipttctl.bpf import syscalls
from ipttctl.bpf.maps import Map
from ipttctl.errors import NameTakenError, ProgramError
from ipttctl.hooks.hook import HookIdentity
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.programs import maps as link_maps
from ipttctl.programs.choice import compiled
from ipttctl.programs.sources import (
    ById,
    ByTag,
    FromObject,
    FromSource,
    ProgramSource,
    open_sources,
    source_digests,
)
from ipttctl.state.journal import Record, RecordedLink
from ipttctl.state.maps import MapDifference
from ipttctl.state.model import DeclaredLink, DeclaredMap, State, Step, StepAction, about
from ipttproto import Slot


@dataclass(frozen=True)
class Match:
    """A declared link, the existing link that it matches, and their differences.

    ``name_taken``: a link that is to go has the name until then.
    """

    declared: DeclaredLink
    identity: HookIdentity
    digests: Mapping[Slot, str]
    link: Link | None
    changes: tuple[str, ...] = ()
    name_taken: bool = False

    @property
    def renamed(self) -> bool:
        """Whether the link is there with another name; one taken over by its id may have any."""
        if self.link is None or self.declared.link is not None:
            return False
        return self.declared.link_name not in {None, self.link.name}

    @property
    def kept(self) -> bool:
        """Whether the existing link keeps its programs."""
        return self.link is not None and not self.changes


@dataclass(frozen=True)
class Adopted:
    """A declared link that a process owns: it is left as it is, and none is made beside it."""

    name: str
    link: Link

    def __str__(self) -> str:
        owner = f"process {self.link.owner_pid} ({self.link.owner_comm})"
        return f"{self.name}: link {self.link.id} belongs to {owner}, and is left as it is"


@dataclass(frozen=True)
class Plan:
    """The steps planned for links; the maps of unchanged links are compared during the steps."""

    matches: tuple[Match, ...]
    adopted: tuple[Adopted, ...]
    surplus: tuple[tuple[str | None, Link], ...]
    """Links to detach, with their names if they are recorded."""
    record: Record
    """The recorded links that still exist, all with their ids, adopted ones included."""
    highest: int
    """The highest id of an existing link."""


def make_plan(
    controller: Controller,
    state: State,
    record: Record,
    prune: bool,
    on_compile: Callable[[], None] | None,
) -> Plan:
    """Compare a state with the machine; see ``diff_state`` for the errors."""
    links = controller.links()
    ours = claimed(record, links)
    free = {link.id: link for link in links if link.persistent and link.hook.gone is None}
    owned = {link.id: link for link in links if not link.persistent}
    known_names = {declared.name for declared in state.links}
    other_names = {entry.link: entry.name for entry in ours if entry.name in known_names}
    matches: list[Match] = []
    adopted: list[Adopted] = []
    for declared in sorted(state.links, key=lambda declared: declared.link is not None):
        with about(declared.name):
            identity = declared.hook.identity()
            # a link made under the name goes before one that an entry takes over
            wanted = [e.link for e in ours if e.name == declared.name]
            if declared.link is not None and all(e.link != declared.link for e in ours):
                wanted.append(declared.link)
            if declared.link is None:
                wanted += [one.id for one in links if one.name == declared.link_name]
            # unless apply made it under another declared name
            wanted = [i for i in wanted if other_names.get(i, declared.name) == declared.name]
            link = next(
                (free[i] for i in wanted if i in free and free[i].hook.identity() == identity),
                None,
            )
            lost = None if link else _owned(declared, identity, record, owned)
            if lost is not None:
                adopted.append(Adopted(declared.name, lost))
                continue
            digests = _digests(declared, on_compile)
            if link is None:
                matches.append(Match(declared, identity, digests, None))
                continue
            del free[link.id]
            # a single link comes with its filter
            link = controller.link(link.id)
            known = next((e for e in ours if e.knows(link)), None)
            changes = tuple(_changes(declared, digests, link, known))
            matches.append(Match(declared, identity, digests, link, changes))
    order = {declared.name: place for place, declared in enumerate(state.links)}
    matches.sort(key=lambda match: order[match.declared.name])
    taken = {match.link.id for match in matches if match.link}
    names = {entry.link: entry.name for entry in ours}
    surplus = tuple(
        (names.get(link.id), link)
        for link in links
        if link.id not in taken and (link.id in names or (prune and link.persistent))
    )
    highest = max((link.id for link in links), default=0)
    matches = [_with_name(match, links, surplus) for match in matches]
    theirs = {one.link.id for one in adopted}
    recorded = Record((*ours, *(entry for entry in record.links if entry.link in theirs)))
    return Plan(tuple(matches), tuple(adopted), surplus, recorded, highest)


def _with_name(
    match: Match, links: Sequence[Link], surplus: Sequence[tuple[str | None, Link]]
) -> Match:
    """The match, having looked whether another link has the name that it needs.

    Raises:
        NameTakenError: one has, and stays.
    """
    wanted = match.declared.link_name
    if wanted is None or (match.link is not None and not match.renamed):
        return match
    holder = next((link for link in links if link.name == wanted), None)
    if holder is None:
        return match
    if all(link.id != holder.id for _, link in surplus):
        where = f"link {holder.id} has this name, and is at another place: {holder.hook}"
        raise NameTakenError(f"{wanted}", errno.EEXIST, where)
    return replace(match, name_taken=True)


def _owned(
    declared: DeclaredLink, identity: HookIdentity, record: Record, owned: Mapping[int, Link]
) -> Link | None:
    """The link at the declared place that would be this one if no process owned it."""
    wanted = [entry.link for entry in record.links if entry.name == declared.name]
    if declared.link is not None:
        wanted.append(declared.link)
    else:
        wanted += [one.id for one in owned.values() if one.name == declared.link_name]
    found = (owned[i] for i in wanted if i in owned and owned[i].hook.gone is None)
    return next((link for link in found if link.hook.identity() == identity), None)


def claimed(record: Record, links: Sequence[Link]) -> list[RecordedLink]:
    """The recorded links that still exist and have no owner, with their ids."""
    found: list[RecordedLink] = []
    for entry in record.links:
        taken = {other.link for other in found}
        link = next((one for one in links if one.id not in taken and entry.is_of(one)), None)
        if link is not None:
            # for a link that was about to be made, nothing else is known
            found.append(entry if entry.link else replace(entry, link=link.id))
    return found


def _digests(declared: DeclaredLink, on_compile: Callable[[], None] | None) -> dict[Slot, str]:
    programs = declared.programs
    return source_digests(programs.sources, programs.constants, on_compile=on_compile)


def _changes(
    declared: DeclaredLink,
    digests: Mapping[Slot, str],
    link: Link,
    known: RecordedLink | None,
) -> Iterator[str]:
    """The parts of a link's program set that differ from the declaration."""
    wanted = declared.programs
    for slot in sorted({*wanted.sources, *link.programs}):
        source = wanted.sources.get(slot)
        if source is None or not is_program(source, slot, link, known, digests.get(slot)):
            yield slot.name.lower()
    if compiled(wanted.filter) != link.filter:
        yield "filter"
    if (wanted.cookie or 0) != link.cookie:
        yield "cookie"
    if not is_payload(wanted.payload, link):
        yield "payload"
    if declared.labels is not None and declared.labels != link.labels:
        yield "labels"


def is_program(
    source: ProgramSource, slot: Slot, link: Link, known: RecordedLink | None, digest: str | None
) -> bool:
    """Whether a slot of a link holds the program of a source."""
    info = link.programs.get(slot)
    if info is None:
        return False
    match source:
        case ById(identifier):
            return identifier == info.id
        case ByTag(tag):
            return tag == info.tag
        case FromSource() | FromObject():
            # the kernel's tag does not cover maps and the constants in them
            return known is not None and known.digests.get(slot.name.lower()) == digest
        case _:
            with open_sources({slot: source}) as fds:
                return syscalls.program_info(fds[slot]).id == info.id


def is_payload(name: str | None, link: Link) -> bool:
    """Whether a link's payload map has this name or id; None means no payload."""
    if name is None or not link.payload_map:
        return name is None and not link.payload_map
    if name == str(link.payload_map):
        return True

    try:
        with link_maps.map_of(link, name) as found:
            return found.info.id == link.payload_map
    except ProgramError:
        return False


def live_maps(match: Match, opened: ExitStack) -> Iterator[tuple[str, MapDifference]]:
    """The differences in the declared maps of a link whose programs stay."""
    if not match.declared.maps or match.link is None:
        return

    for name, declared in match.declared.maps.items():
        yield from _difference(name, declared, link_maps.map_of(match.link, name), opened)


def new_maps(
    match: Match, programs: ProgramSet, opened: ExitStack
) -> Iterator[tuple[str, MapDifference]]:
    """The differences in the declared maps of programs that are not in the link yet."""
    if not match.declared.maps:
        return

    fds = list(programs.programs.values())
    for name, declared in match.declared.maps.items():
        yield from _difference(name, declared, link_maps.map_of_programs(fds, name), opened)


def _difference(
    name: str, declared: DeclaredMap, found: Map, opened: ExitStack
) -> Iterator[tuple[str, MapDifference]]:
    """The difference of a map, if any: then ``opened`` keeps the map open."""
    with ExitStack() as ours:
        ours.enter_context(found)
        with about(name):
            difference = MapDifference.between(found, declared.entries)
        if difference.entries:
            opened.push(ours.pop_all())
            yield name, difference


def map_steps(differences: Sequence[tuple[Match, str, MapDifference]]) -> Iterator[Step]:
    """The steps that change maps."""
    for match, name, difference in differences:
        link = match.link.id if match.link else None
        shape = difference.map.format
        for entry in difference.entries:
            key = shape.key(entry.key)
            if entry.after is None:
                yield Step(StepAction.DELETE, match.declared.name, link, map=name, key=key)
            else:
                value = shape.value(entry.after)
                yield Step(
                    StepAction.SET, match.declared.name, link, map=name, key=key, value=value
                )


def link_steps(plan: Plan) -> Iterator[Step]:
    """The steps that make and swap links."""
    for match in plan.matches:
        declared = match.declared
        if match.link is None:
            yield Step(StepAction.ATTACH, declared.name, None, declared=declared)
        elif match.changes:
            yield Step(
                StepAction.SWAP, declared.name, match.link.id, match.changes, declared=declared
            )


def rename_steps(plan: Plan) -> Iterator[Step]:
    """The steps that give existing links their names."""
    for match in plan.matches:
        if match.link is not None and match.renamed:
            yield Step(StepAction.RENAME, match.declared.name, match.link.id)


def detach_steps(plan: Plan) -> Iterator[Step]:
    """The steps that detach links."""
    for name, link in plan.surplus:
        yield Step(StepAction.DETACH, name, link.id)
