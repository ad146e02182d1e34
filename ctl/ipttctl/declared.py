# SPDX-License-Identifier: GPL-2.0
"""Links as they are declared to be, and what makes the machine so.

    state = State((DeclaredLink("dns", place, ProgramChoice({Slot.PACKET: Pinned("/x/y")})),))
    with Controller() as controller:
        for step in apply_state(controller, state):
            print(step.action, step.name)

Only persistent links are compared and changed, never one that a process owns. A declared link is
an existing one at the declared place that apply made under this name, or that its entry names by
its id; otherwise it is made. Links that apply made and that are not declared any more go.
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ipttctl import netns
from ipttctl.controller import Controller
from ipttctl.declared_record import RECORD, Record, RecordedLink, locked
from ipttctl.errors import IpttctlError, LinkGoneError, ProgramError, UsageError
from ipttctl.hooks import NfFamily, NfHook
from ipttctl.objects import Link, ProgramSet, Swap
from ipttctl.places import Place, PlaceIdentity
from ipttctl.program_choice import ProgramChoice, check_types, compiled
from ipttctl.sources import (
    ById,
    ByTag,
    FromObject,
    FromSource,
    OfDescriptor,
    OfProcess,
    Pinned,
    ProgramSource,
    open_sources,
    parse_source,
    source_digest,
    source_text,
)
from ipttproto import Hook, NfMode, Slot
from ipttproto.family import limit

if TYPE_CHECKING:
    from ipttctl.declared_maps import MapDifference
    from ipttctl.maps import Map

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MOST: Final = limit("MAX_CHANGES")
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_VERSIONS: Final = {4: 4, 6: 6}
#: flags of maps that programs only read (BPF_F_RDONLY_PROG): the constants of an object file
_CONSTANTS: Final = 1 << 7


@dataclass(frozen=True)
class DeclaredMap:
    """The keys of a map with their values, as ``Map.set`` takes them; None is whatever it is.

    Keys that are not here go, but of arrays, whose keys always stay.
    """

    entries: tuple[tuple[Any, Any], ...]

    @property
    def keys_only(self) -> bool:
        """Whether no value is declared."""
        return all(value is None for _, value in self.entries)


@dataclass(frozen=True)
class DeclaredLink:
    """A link as it is to be.

    ``maps`` are by the names of the maps that its programs use; others are left alone. ``link`` is
    the id of a persistent link to take over, if it is at this place. ``filter_length`` is for one
    whose filter nobody can read back: so many instructions are there, and shall stay.
    """

    name: str
    place: Place
    programs: ProgramChoice
    maps: Mapping[str, DeclaredMap] = field(default_factory=dict)
    link: int | None = None
    filter_length: int = 0

    def check(self) -> None:
        """Check what can be told without the machine.

        Raises:
            UsageError: the name is none, or the place has not the slots of the programs.
        """
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"'{self.name}' is not a name of a link", "letters, digits, '_', '.' and '-'"
            )
        if self.filter_length and self.programs.filter:
            raise UsageError("there are both a filter and its length", "leave one out")
        self.place.check(self.programs.sources.keys())


@dataclass(frozen=True)
class State:
    """All links that are to be.

    Raises:
        UsageError: two have one name or take one link over, or one makes no sense.
    """

    links: tuple[DeclaredLink, ...] = ()

    def __post_init__(self) -> None:
        for link in self.links:
            with _about(link.name):
                link.check()
        names: list[object] = [link.name for link in self.links]
        taken: list[object] = [link.link for link in self.links if link.link is not None]
        for values in (names, taken):
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise UsageError(f"link {twice} is declared twice")


class StepAction(enum.StrEnum):
    """What a step does."""

    ATTACH = "attach"
    SWAP = "swap"
    SET = "set"
    DELETE = "delete"
    DETACH = "detach"


@dataclass(frozen=True)
class Step:
    """A difference between what is and what is declared, or what apply did about it.

    ``link`` is the link's id, None for one that is not made yet. ``changes`` are the parts of a
    program set that differ (slots, ``filter``, ``cookie``, ``payload``). ``map``, ``key`` and
    ``value`` are of SET and DELETE. ``declared`` is what ATTACH and SWAP make of it.
    """

    action: StepAction
    name: str | None
    link: int | None
    changes: tuple[str, ...] = ()
    map: str | None = None
    key: Any = None
    value: Any = None
    declared: DeclaredLink | None = None


@dataclass(frozen=True)
class _Match:
    """A declared link, the link that it is so far, and in what that differs."""

    declared: DeclaredLink
    identity: PlaceIdentity
    digests: Mapping[Slot, str]
    link: Link | None
    changes: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the link's programs stay."""
        return self.link is not None and not self.changes


@dataclass(frozen=True)
class _Plan:
    matches: tuple[_Match, ...]
    surplus: tuple[tuple[str | None, Link], ...]
    """Links to detach, with the names of those that are recorded."""
    record: Record
    """What is remembered, as far as it still holds, with the ids of all links."""
    highest: int
    """The highest id of a link there is."""


def diff_state(
    controller: Controller,
    state: State,
    *,
    prune: bool = False,
    record: Path = RECORD,
    on_compile: Callable[[], None] | None = None,
) -> list[Step]:
    """What ``apply_state`` would do. Nothing is changed and nothing loaded.

    The maps of programs that are to be loaded are not there yet: what they are to hold is part of
    the link's own step.

    Raises:
        UsageError: a namespace or a device is missing, or a filter that nobody knows is to change.
        ProgramError: a program or a map is missing, or a source does not compile.
        PrivilegeError: the caller may not look (CAP_NET_ADMIN; for maps CAP_SYS_ADMIN).
    """
    plan = _plan(controller, state, Record.read(record), prune, on_compile)
    with ExitStack() as opened:
        differences = [
            (match, name, difference)
            for match in plan.matches
            if match.kept
            for name, difference in _live_maps(match, opened)
        ]
        return [*_map_steps(differences), *_link_steps(plan), *_detach_steps(plan)]


def apply_state(
    controller: Controller,
    state: State,
    *,
    prune: bool = False,
    record: Path = RECORD,
    on_compile: Callable[[], None] | None = None,
) -> list[Step]:
    """Make the machine as it is declared; what was done for it, nothing where it was so already.

    Everything is loaded first. Then maps are changed, new links attached, all links that change
    swapped in one transaction, and links that are to go detached. Whatever fails up to the
    transaction is undone. With ``prune`` persistent links go too that apply did not make.

    A process that is killed half way leaves the links it has attached; whoever applies next makes
    them the declared ones, or detaches them.

    Raises:
        UsageError, ProgramError, PrivilegeError: as for ``diff_state``.
        ExpectationError: somebody else changed a link meanwhile.
        KernelError: the module refuses; the message names the link.
    """
    with locked(record):
        plan = _plan(controller, state, Record.read(record), prune, on_compile)
        if sum(bool(match.changes) for match in plan.matches) > _MOST:
            raise UsageError(
                f"more than {_MOST} links change, and they can only do so together",
                "change fewer at a time",
            )
        return _Application(controller, plan, record).run(on_compile)


class _Application:
    """One run of apply, which holds the lock."""

    def __init__(self, controller: Controller, plan: _Plan, record: Path) -> None:
        self._controller = controller
        self._plan = plan
        self._record = record
        self._now: dict[str, Link] = {}
        """Links by declared name, once they are as declared."""

    def run(self, on_compile: Callable[[], None] | None) -> list[Step]:
        """Do it; see ``apply_state``."""
        plan = self._plan
        with ExitStack() as opened, ExitStack() as undo:
            sets: dict[str, ProgramSet] = {}
            differences: list[tuple[_Match, str, MapDifference]] = []
            for match in plan.matches:
                name = match.declared.name
                with _about(name):
                    if match.kept:
                        found = list(_live_maps(match, opened))
                    else:
                        sets[name] = opened.enter_context(match.declared.programs.open(on_compile))
                        check_types(sets[name].programs)
                        found = list(_new_maps(match, sets[name], opened))
                    differences += [(match, map_name, entry) for map_name, entry in found]
            steps = [*_map_steps(differences), *_link_steps(plan)]
            if steps:
                self._change(sets, differences, undo)
            self._now |= {m.declared.name: m.link for m in plan.matches if m.link and m.kept}
            with _uninterrupted():
                self._swap(sets)
                self._remember(plan.surplus)
                undo.pop_all()
        for _, link in plan.surplus:
            with suppress(LinkGoneError):
                self._controller.detach(link.id, expect_generation=link.generation)
        if plan.surplus:
            self._remember(())
        made = [
            replace(step, link=self._now[step.name].id) if step.name in self._now else step
            for step in steps
        ]
        return [*made, *_detach_steps(plan)]

    def _change(
        self,
        sets: Mapping[str, ProgramSet],
        differences: Sequence[tuple[_Match, str, MapDifference]],
        undo: ExitStack,
    ) -> None:
        """Maps and new links: what is undone if something fails."""
        new = [match for match in self._plan.matches if match.link is None]
        if new:
            pending = tuple(self._pending(match, sets[match.declared.name]) for match in new)
            old = self._plan.record
            Record((*old.links, *pending)).write(self._record)
            undo.callback(old.write, self._record)
        for match, name, difference in differences:
            undo.callback(difference.undo)
            with _about(f"{match.declared.name}/{name}"):
                difference.make()
        for match in new:
            declared = match.declared
            with _about(declared.name):
                link = declared.place.attach(self._controller, sets[declared.name], persistent=True)
            undo.callback(self._withdraw, link)
            self._now[declared.name] = link

    def _withdraw(self, link: Link) -> None:
        with suppress(LinkGoneError):
            self._controller.detach(link.id)

    def _swap(self, sets: Mapping[str, ProgramSet]) -> None:
        changed = [(m.declared.name, m.link) for m in self._plan.matches if m.link and m.changes]
        if changed:
            swapped = self._controller.transact(
                [Swap(link.id, sets[name], link.generation) for name, link in changed]
            )
            self._now |= {name: link for (name, _), link in zip(changed, swapped, strict=True)}

    def _remember(self, surplus: Sequence[tuple[str | None, Link]]) -> None:
        """Write what the links are now; those that are still to go are ours until they went."""
        going = {link.id for _, link in surplus}
        Record(
            (
                *(entry for entry in self._plan.record.links if entry.link in going),
                *(_recorded(match, self._now[match.declared.name]) for match in self._plan.matches),
            )
        ).write(self._record)

    def _pending(self, match: _Match, programs: ProgramSet) -> RecordedLink:
        from ipttctl import bpf  # noqa: PLC0415  # loads libbpf

        ids = {s.name.lower(): bpf.program_info(fd).id for s, fd in programs.programs.items()}
        return RecordedLink(
            match.declared.name,
            link=0,
            generation=self._plan.highest,
            place=match.identity,
            programs={},
            pid=os.getpid(),
            ids=ids,
        )


def _plan(
    controller: Controller,
    state: State,
    record: Record,
    prune: bool,
    on_compile: Callable[[], None] | None,
) -> _Plan:
    links = controller.links()
    ours = _claimed(record, links)
    free = {link.id: link for link in links if link.persistent and link.gone is None}
    matches: list[_Match] = []
    for declared in sorted(state.links, key=lambda declared: declared.link is not None):
        with _about(declared.name):
            identity = declared.place.identity()
            # what a name stands for goes before what entries take over
            wanted = [e.link for e in ours if e.name == declared.name]
            if declared.link is not None and all(e.link != declared.link for e in ours):
                wanted.append(declared.link)
            link = next(
                (free[i] for i in wanted if i in free and PlaceIdentity.of(free[i]) == identity),
                None,
            )
            digests = _digests(declared, on_compile)
            if link is None:
                _require_filter(declared.filter_length)
                matches.append(_Match(declared, identity, digests, None))
                continue
            del free[link.id]
            known = next((e for e in ours if e.knows(link)), None)
            changes = tuple(_changes(declared, digests, link, known))
            if changes:
                _require_filter(declared.filter_length)
            matches.append(_Match(declared, identity, digests, link, changes))
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
    return _Plan(tuple(matches), surplus, Record(tuple(ours)), highest)


def _claimed(record: Record, links: Sequence[Link]) -> list[RecordedLink]:
    """The recorded links that are still there and nobody's, with their ids."""
    found: list[RecordedLink] = []
    for entry in record.links:
        taken = {other.link for other in found}
        link = next((one for one in links if one.id not in taken and entry.is_of(one)), None)
        if link is not None:
            # of one that was about to be made nothing else is known
            found.append(entry if entry.link else replace(entry, link=link.id, generation=0))
    return found


def _require_filter(length: int) -> None:
    """Refuse to make a program set whose filter only its length is known of."""
    if length:
        raise UsageError(
            f"its filter of {length} instructions cannot be read back from the kernel",
            "write it as `filter` in the place of `filter-length`",
        )


def _digests(declared: DeclaredLink, on_compile: Callable[[], None] | None) -> dict[Slot, str]:
    return {
        slot: source_digest(source, on_compile=on_compile)
        for slot, source in declared.programs.sources.items()
        if isinstance(source, FromSource | FromObject)
    }


def _changes(
    declared: DeclaredLink,
    digests: Mapping[Slot, str],
    link: Link,
    known: RecordedLink | None,
) -> Iterator[str]:
    """The parts of a link's program set that are not as declared."""
    wanted = declared.programs
    for slot in sorted({*wanted.sources, *link.programs}):
        source = wanted.sources.get(slot)
        if source is None or not _is_program(source, slot, link, known, digests.get(slot)):
            yield slot.name.lower()
    code = compiled(wanted.filter) or b""
    if known is not None and not declared.filter_length:
        same = known.filter_code == _hash(code)
    else:
        # somebody else's filter can be told by its length only
        same = link.filter_length == declared.filter_length and not code
    if not same:
        yield "filter"
    if (wanted.cookie or 0) != link.cookie:
        yield "cookie"
    if not _is_payload(wanted.payload, link):
        yield "payload"


def _is_program(
    source: ProgramSource, slot: Slot, link: Link, known: RecordedLink | None, digest: str | None
) -> bool:
    """Whether a slot of a link holds the program that a source means."""
    info = link.programs.get(slot)
    if info is None:
        return False
    match source:
        case ById(identifier):
            return identifier == info.id
        case ByTag(tag):
            return tag == info.tag
        case FromSource() | FromObject():
            # the kernel knows the tag, which says nothing of maps and their constants
            return known is not None and known.digests.get(slot.name.lower()) == digest
        case _:
            from ipttctl import bpf  # noqa: PLC0415  # loads libbpf

            with open_sources({slot: source}) as fds:
                return bpf.program_info(fds[slot]).id == info.id


def _is_payload(name: str | None, link: Link) -> bool:
    if name is None or not link.payload_map:
        return name is None and not link.payload_map
    if name == str(link.payload_map):
        return True
    from ipttctl.link_maps import map_of  # noqa: PLC0415  # loads libbpf

    try:
        with map_of(link, name) as found:
            return found.info.id == link.payload_map
    except ProgramError:
        return False


def _recorded(match: _Match, link: Link) -> RecordedLink:
    declared = match.declared
    wanted = declared.programs
    return RecordedLink(
        declared.name,
        link.id,
        link.generation,
        PlaceIdentity.of(link),
        {slot.name.lower(): source_text(s) for slot, s in wanted.sources.items()},
        {slot.name.lower(): digest for slot, digest in match.digests.items()},
        wanted.filter,
        _hash(compiled(wanted.filter) or b""),
        wanted.payload,
        {name: [list(entry) for entry in m.entries] for name, m in declared.maps.items()},
    )


def _hash(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest() if code else ""


def _live_maps(match: _Match, opened: ExitStack) -> Iterator[tuple[str, MapDifference]]:
    """What differs in the declared maps of a link whose programs stay."""
    if not match.declared.maps or match.link is None:
        return
    from ipttctl.link_maps import map_of  # noqa: PLC0415  # loads libbpf

    for name, declared in match.declared.maps.items():
        yield from _difference(name, declared, opened.enter_context(map_of(match.link, name)))


def _new_maps(
    match: _Match, programs: ProgramSet, opened: ExitStack
) -> Iterator[tuple[str, MapDifference]]:
    """What differs in the declared maps of programs that are not in the link yet."""
    if not match.declared.maps:
        return
    from ipttctl.link_maps import map_of_programs  # noqa: PLC0415  # loads libbpf

    fds = list(programs.programs.values())
    for name, declared in match.declared.maps.items():
        yield from _difference(name, declared, opened.enter_context(map_of_programs(fds, name)))


def _difference(
    name: str, declared: DeclaredMap, found: Map
) -> Iterator[tuple[str, MapDifference]]:
    from ipttctl.declared_maps import MapDifference  # noqa: PLC0415  # loads libbpf

    with _about(name):
        difference = MapDifference.between(found, declared.entries)
    if difference.entries:
        yield name, difference


def _map_steps(differences: Sequence[tuple[_Match, str, MapDifference]]) -> Iterator[Step]:
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


def _link_steps(plan: _Plan) -> Iterator[Step]:
    for match in plan.matches:
        declared = match.declared
        if match.link is None:
            yield Step(StepAction.ATTACH, declared.name, None, declared=declared)
        elif match.changes:
            yield Step(
                StepAction.SWAP, declared.name, match.link.id, match.changes, declared=declared
            )


def _detach_steps(plan: _Plan) -> Iterator[Step]:
    for name, link in plan.surplus:
        yield Step(StepAction.DETACH, name, link.id)


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
    ours = {entry.link: entry for entry in _claimed(Record.read(record), links)}
    saved: list[DeclaredLink] = []
    left_out: list[tuple[Link, str]] = []
    for link in links:
        if not link.persistent:
            left_out.append((link, f"process {link.owner_pid} ({link.owner_comm}) owns it"))
        elif link.gone is not None:
            left_out.append((link, "it is at no hook any more"))
        else:
            names = {entry.name for entry in ours.values()}
            try:
                saved.append(_saved(link, ours.get(link.id), names, maps, pins))
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
    with _about(f"link {link.id}"):
        return DeclaredLink(
            name,
            _place_of(link),
            ProgramChoice(
                sources,
                known.filter if known else None,
                link.cookie or None,
                _payload_name(link),
            ),
            _saved_maps(link, entry, all_maps),
            None if entry else link.id,
            0 if known else link.filter_length,
        )


def _saved_source(slot: Slot, link: Link, known: RecordedLink | None) -> ProgramSource:
    if known and slot.name.lower() in known.programs:
        source = parse_source(*known.programs[slot.name.lower()])
        match source:
            case OfDescriptor() | OfProcess():
                pass  # they end with a process
            case Pinned():
                with suppress(ProgramError):
                    if _is_program(source, slot, link, known, None):
                        return source
            case _:
                return source
    return ById(link.programs[slot].id)


def _pinned(source: ProgramSource, directory: Path) -> ProgramSource:
    """A program's pin in a directory, made where there is none, if it is known by its id only."""
    if not isinstance(source, ById):
        return source
    from ipttctl.programs import Program  # noqa: PLC0415  # loads libbpf

    with Program.from_id(source.id) as program:
        place = directory / f"{program.id}-{program.name or 'program'}"
        if not place.exists():
            program.pin(place)
    return Pinned(str(place))


def _payload_name(link: Link) -> str | None:
    if not link.payload_map:
        return None
    from ipttctl.maps import Map  # noqa: PLC0415  # loads libbpf

    with Map.from_id(link.payload_map) as found:
        name = found.name
    return name if name and _is_payload(name, link) else str(link.payload_map)


def _saved_maps(link: Link, entry: RecordedLink | None, everything: bool) -> dict[str, DeclaredMap]:
    declared = {} if entry is None else dict(entry.maps)
    if not declared and not everything:
        return {}
    from ipttctl.declared_maps import ARRAYS  # noqa: PLC0415  # loads libbpf
    from ipttctl.link_maps import maps_of  # noqa: PLC0415  # loads libbpf

    saved = {}
    with maps_of(link) as used:
        names = [one.map.name for one in used]
        for one in used:
            found = one.map
            told = next(
                (n for n in declared if n in (found.name, str(found.info.id))), None
            ) or next((n for n in declared if found.name and n.startswith(found.name)), None)
            if told is None and (not everything or not _is_data(found)):
                continue
            alone = found.name and names.count(found.name) == 1
            called = told or (found.name if alone else str(found.info.id))
            content = dict(found.items())
            entries = declared.get(told, ()) if told else ()
            any_value = {found.format.key_bytes(key) for key, value in entries if value is None}
            listed = {found.format.key_bytes(key) for key, _ in entries}
            saved[called] = DeclaredMap(
                tuple(
                    (found.format.key(k), None if k in any_value else found.format.value(v))
                    for k, v in content.items()
                    # of an array only what was declared is: the rest is left alone
                    if told is None or found.info.type not in ARRAYS or k in listed
                )
            )
            if told and entries and len(any_value) == len(listed):
                saved[called] = DeclaredMap(tuple((k, None) for k, _ in saved[called].entries))
    return saved


def _is_data(found: Map) -> bool:
    from ipttctl import bpf  # noqa: PLC0415  # loads libbpf

    kinds = (
        bpf.MapType.PROG_ARRAY,
        bpf.MapType.ARRAY_OF_MAPS,
        bpf.MapType.HASH_OF_MAPS,
    )
    return (
        bool(found.info.key_size)
        and found.info.type not in kinds
        and not found.info.flags & _CONSTANTS
    )


def _place_of(link: Link) -> Place:
    """A link's place, as it is declared."""
    if link.hook != Hook.NF:
        return Place(Hook.TABLE, _VERSIONS.get(link.family or 0))  # type: ignore[arg-type]
    return Place(
        NfHook(
            NfFamily(link.nf_family or 0),
            link.hooknum or 0,
            link.priority or 0,
            netns=netns.find(str(link.netns)),
            device=link.ifname if link.ifindex else None,
            mode=NfMode(link.mode or NfMode.OBSERVE),
            report_drops=link.report_drops,
        )
    )


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Have errors say which link, or which of its maps, they are about."""
    try:
        yield
    except IpttctlError as error:
        error.problem = f"{name}: {error.problem}"
        error.args = (f"{error.problem}; {error.remedy}" if error.remedy else error.problem,)
        raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals that end a process wait: what is begun here is finished."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
