# SPDX-License-Identifier: GPL-2.0
"""Apply a declared state to the machine, or list the changes that this would make."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from ipttctl.bpf import syscalls
from ipttctl.errors import IpttctlError, LinkGoneError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet, Swap
from ipttctl.programs.choice import check_types
from ipttctl.programs.keep import keep_maps
from ipttctl.programs.passing import load_passing
from ipttctl.programs.sources import ById, is_file
from ipttctl.state.journal import RECORD, Record, RecordedLink, locked, program_ids
from ipttctl.state.maps import MapChange, MapDifference
from ipttctl.state.model import State, Step, Terms, about
from ipttctl.state.plan import (
    Match,
    Plan,
    confirm_steps,
    detach_steps,
    link_steps,
    make_plan,
    map_steps,
    rename_steps,
    require_free,
)
from ipttctl.state.plan_maps import check_maps, live_maps, new_maps
from ipttctl.state.recorded import recorded, undone
from ipttctl.state.undo import Undo, held_back
from ipttproto.family import limit

DEFAULT_TERMS: Final = Terms()
"""The terms of a file without an owner."""

_MOST: Final = limit("MAX_CHANGES")


def diff_state(
    controller: Controller,
    state: State,
    *,
    terms: Terms = DEFAULT_TERMS,
    record: Path = RECORD,
    on_compile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Step]:
    """List the steps that ``apply_state`` would take. Nothing is changed or loaded.

    ``warn`` is called with a sentence for each declared link that is left as it is, or on trial:
    somebody adopted it, its last swap waits to be confirmed, or it has a shadow.

    The maps of programs still to be loaded do not exist yet: their declared contents are part of
    the link's own step.

    Raises:
        UsageError: a namespace or a device is missing.
        ProgramError: a program or a map is missing, is not the one with a declared digest, or a
            source does not compile.
        OtherOwnerError: the file of another owner declares a link or a map.
        PrivilegeError: the caller lacks CAP_NET_ADMIN, or for maps CAP_SYS_ADMIN.
    """
    return planned(controller, state, terms, record, on_compile=on_compile, warn=warn)[1]


def planned(
    controller: Controller,
    state: State,
    terms: Terms,
    record: Path,
    *,
    on_compile: Callable[[], None] | None,
    warn: Callable[[str], None] | None,
) -> tuple[Plan, list[Step]]:
    """The plan for a state, and its steps, as ``diff_state`` lists them."""
    plan = make_plan(controller, state, Record.read(record), terms, on_compile)
    _warn(plan, warn)
    return plan, visible_steps(plan)


def visible_steps(plan: Plan) -> list[Step]:
    """The steps of a plan that can be told before programs are loaded."""
    with ExitStack() as opened:
        differences = [
            (match, name, difference)
            for match in plan.matches
            if match.runs and not match.left
            for name, difference in live_maps(match, opened)
        ]
        check_maps(plan, differences)
        return [
            *map_steps(differences),
            *link_steps(plan),
            *confirm_steps(plan),
            *detach_steps(plan),
            *rename_steps(plan),
        ]


def apply_state(
    controller: Controller,
    state: State,
    *,
    terms: Terms = DEFAULT_TERMS,
    record: Path = RECORD,
    on_compile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
    reason: str | None = None,
    check: Callable[[Plan], None] | None = None,
) -> list[Step]:
    """Make the machine match a declared state; returns the steps taken, empty if it did already.

    Everything is loaded first. Then maps are changed, new links attached, all changed links swapped
    in one transaction, swaps confirmed, surplus links detached, and links given their names. If
    anything fails up to and including the transaction, everything is undone. On trial, new links
    that filter pass every packet at first, and get their programs in that transaction; those that
    are too many for it do so before, in others. ``terms`` say whose
    the state is, what is surplus, and what becomes of swaps that wait. ``warn`` is as for
    ``diff_state``, and called for maps that are not kept, and before another apply is waited for.
    All changes of links have the ``reason``. ``check`` is called with the plan before anything is
    changed, and raises to stop.

    A process that is killed half way leaves the links it has attached. The next apply makes them
    the declared ones, or detaches them.

    Raises:
        UsageError, ProgramError, OtherOwnerError, PrivilegeError: as for ``diff_state``.
        SwapWaitingError: a link that is to change waits to be confirmed or rolled back.
        ExpectationError: somebody else changed a link meanwhile.
        KernelError: a link that is to change has a shadow (EBUSY), or the module refuses.
    """
    with locked(record, tell=warn):
        return apply_locked(
            controller,
            state,
            terms=terms,
            record=record,
            on_compile=on_compile,
            warn=warn,
            reason=reason,
            check=check,
        )


def apply_locked(
    controller: Controller,
    state: State,
    *,
    terms: Terms,
    record: Path,
    on_compile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
    reason: str | None = None,
    check: Callable[[Plan], None] | None = None,
) -> list[Step]:
    """Do what ``apply_state`` does, for a caller that has the lock of the record."""
    plan = make_plan(controller, state, Record.read(record), terms, on_compile)
    if check:
        check(plan)
    require_free(plan)
    _warn(plan, warn)
    if sum(bool(match.changes) for match in plan.matches) > _MOST:
        raise UsageError(
            f"more than {_MOST} links change, and they can only do so together",
            "change fewer at a time",
        )
    return _Application(controller, plan, record, warn, reason).run(on_compile)


def _warn(plan: Plan, warn: Callable[[str], None] | None) -> None:
    if warn:
        for sentence in plan.notes():
            warn(sentence)


class _Application:
    """One run of apply, made under the lock."""

    def __init__(
        self,
        controller: Controller,
        plan: Plan,
        record: Path,
        warn: Callable[[str], None] | None,
        reason: str | None,
    ) -> None:
        self._controller = controller
        self._warn = warn
        self._reason = reason
        self._plan = plan
        self._record = record
        self._now: dict[str, Link] = {}
        """The links that are as declared, by declared name."""
        self._passing: dict[str, ProgramSet] = {}
        """The programs that new links have until they are swapped, by declared name."""

    def run(self, on_compile: Callable[[], None] | None) -> list[Step]:
        """Take all steps; see ``apply_state``."""
        plan = self._plan
        with ExitStack() as opened:
            sets, differences = self._load(opened, on_compile)
            check_maps(plan, differences)
            steps = [*map_steps(differences), *link_steps(plan)]
            with held_back() as signals:
                undo = Undo(signals)
                try:
                    self._change(sets, differences, undo, signals.check)
                    signals.check()
                    if self._passing:
                        # their numbers are known now, and which programs they will have
                        self._announced(sets).write(self._record)
                    self._swap(sets)
                except BaseException as error:
                    undo.run(error)
                    # it stays announced if something could not be undone
                    if sets:
                        Record((*plan.others, *plan.record.links)).write(self._record)
                    raise
                self._now |= {m.declared.name: m.link for m in plan.matches if m.link and m.kept}
                self._remember(plan.surplus)
        self._confirm()
        for _, link in () if plan.deferred else plan.surplus:
            with suppress(LinkGoneError):
                self._controller.detach(
                    link.id, expect_generation=link.generation, reason=self._reason
                )
        if plan.surplus and not plan.deferred:
            self._remember(())
        for match in plan.matches:
            if match.name_taken and plan.deferred:
                continue
            if match.renamed or match.name_taken:
                name = match.declared.name
                with about(name), suppress(LinkGoneError):
                    self._controller.rename(self._now[name].id, name)
        made = [
            replace(step, link=self._now[step.name].id) if step.name in self._now else step
            for step in steps
        ]
        return [*made, *confirm_steps(plan), *detach_steps(plan), *rename_steps(plan)]

    def _load(
        self, opened: ExitStack, on_compile: Callable[[], None] | None
    ) -> tuple[dict[str, ProgramSet], list[tuple[Match, str, MapDifference]]]:
        """Load all programs that links are to get; returns them, and the maps that differ."""
        plan = self._plan
        sets: dict[str, ProgramSet] = {}
        differences: list[tuple[Match, str, MapDifference]] = []
        for match in plan.matches:
            name = match.declared.name
            if match.left:
                continue
            with about(name):
                if not match.kept:
                    sets[name] = self._open(match, opened, on_compile)
                    check_types(sets[name].programs)
                if match.runs:
                    found = list(live_maps(match, opened))
                else:
                    found = list(new_maps(match, sets[name], opened))
                differences += [(match, map_name, entry) for map_name, entry in found]
                if plan.tries(match):
                    self._passing[name] = _passing(sets[name], opened)
        return sets, differences

    def _open(
        self, match: Match, opened: ExitStack, on_compile: Callable[[], None] | None
    ) -> ProgramSet:
        """Load the programs of a link, with the maps that it keeps; or take those that it has."""
        declared, keep = match.declared, None
        if match.link is not None and match.runs:
            # those of files would be loaded anew, and begin with empty maps
            has = {
                slot: ById(match.link.programs[slot].id) if is_file(source) else source
                for slot, source in declared.programs.sources.items()
            }
            choice = replace(declared.programs, sources=has, constants={}, digests={})
            return opened.enter_context(choice.open(on_compile))
        if match.link is not None and declared.keep_maps is not None:
            keep = opened.enter_context(keep_maps(match.link, declared.keep_maps, self._warn))
        return opened.enter_context(declared.programs.open(on_compile, keep=keep))

    def _change(
        self,
        sets: Mapping[str, ProgramSet],
        differences: Sequence[tuple[Match, str, MapDifference]],
        undo: Undo,
        check: Callable[[], None],
    ) -> None:
        """Change maps and make new links: the changes that are undone if something fails."""
        new = [match for match in self._plan.matches if match.link is None]
        if sets:
            self._announced(sets).write(self._record)
        for match, name, difference in differences:
            change = MapChange(difference)
            undo.add(change.undo)
            with about(f"{match.declared.name}/{name}"):
                change.make(check)
        for match in new:
            check()
            declared = match.declared
            with about(declared.name):
                link = self._controller.attach(
                    declared.hook,
                    self._passing.get(declared.name, sets[declared.name]),
                    persistent=True,
                    name=None if match.name_taken else declared.link_name,
                    labels=match.labels or None,
                    reason=self._reason,
                )
            undo.add(partial(self._withdraw, link))
            self._now[declared.name] = link

    def _withdraw(self, link: Link, abandoned: Callable[[], bool]) -> str:
        """Detach a link that was attached; returns words for it if it stays."""
        if not abandoned():
            try:
                self._controller.detach(link.id)
            except LinkGoneError:
                pass
            except IpttctlError as error:
                return f"link {link.id} ({error.problem})"
            return ""
        return f"link {link.id}"

    def _swap(self, sets: Mapping[str, ProgramSet]) -> None:
        matches = self._plan.matches
        changed = [(m, m.link) for m in matches if m.link and m.changes]
        tried = [(m, self._now[m.declared.name]) for m in matches if self._plan.tries(m)]
        room = _MOST - len(changed)
        # what cannot be undone comes last: a link that is new is just detached
        more = [tried[at : at + _MOST] for at in range(room, len(tried), _MOST)]
        parts = [*more, [*changed, *tried[:room]]]
        for part in filter(None, parts):
            swapped = self._controller.transact(
                [
                    Swap(link.id, sets[to.declared.name], link.generation, labels=to.labels)
                    for to, link in part
                ],
                rollback_after=self._plan.terms.rollback_after,
                guards=self._plan.terms.guards,
                reason=self._reason,
            )
            pairs = zip(part, swapped, strict=True)
            self._now |= {to.declared.name: link for (to, _), link in pairs}

    def _confirm(self) -> None:
        """Confirm the swaps that wait, each transaction once."""
        done: set[int] = set()
        for step in confirm_steps(self._plan):
            link = self._now[str(step.name)]
            if link.transaction not in done:
                done.add(link.transaction)
                with about(str(step.name)):
                    self._controller.confirm(link.id, expect_generation=link.generation)

    def _remember(self, surplus: Sequence[tuple[str | None, Link]]) -> None:
        """Record the links as they are now; surplus and adopted ones until they are gone."""
        plan = self._plan
        known = {entry.link: entry for entry in plan.record.links}
        stay = {link.id for _, link in surplus} | {one.link.id for one in plan.adopted}
        stay |= {match.link.id for match in plan.matches if match.link and match.left}
        stay |= {entry.link for entry in plan.record.links if entry.name in plan.absent}
        Record(
            (
                *plan.others,
                *(entry for entry in plan.record.links if entry.link in stay),
                *(
                    _recorded_as(match, now, plan.terms.owner, known.get(now.id))
                    for match in plan.matches
                    if not match.left
                    for now in (self._now[match.declared.name],)
                ),
            )
        ).write(self._record)

    def _announced(self, sets: Mapping[str, ProgramSet]) -> Record:
        """The record in which links are about to be made and swapped: either may happen or not."""
        plan = self._plan
        known = {entry.link: entry for entry in plan.record.links}
        coming = [match for match in plan.matches if not match.kept]
        swapped = {match.link.id for match in coming if match.link}
        return Record(
            (
                *plan.others,
                *(entry for entry in plan.record.links if entry.link not in swapped),
                *(self._announce(match, sets[match.declared.name], known) for match in coming),
            )
        )

    def _announce(
        self, match: Match, programs: ProgramSet, known: Mapping[int, RecordedLink]
    ) -> RecordedLink:
        name = match.declared.name
        entry = recorded(match.declared, match.identity, match.digests, self._plan.terms.owner)
        entry = replace(entry, ids=_ids(programs))
        link = match.link or (self._now.get(name) if name in self._passing else None)
        if link is None:
            if name in self._passing:
                # as long as it has these, it has no program of a file
                entry = replace(entry, ids=_ids(self._passing[name]), digests={})
            return replace(entry, after=max(self._plan.links, default=0), pid=os.getpid())
        earlier = known.get(link.id)
        return replace(
            entry,
            link=link.id,
            generation=link.generation + 1,
            before=replace(earlier, before=None) if earlier else None,
        )


def _ids(programs: ProgramSet) -> dict[str, int]:
    """The ids of the programs of a set, by slot."""
    fds = programs.programs.items()
    return {slot.name.lower(): syscalls.program_info(fd).id for slot, fd in fds}


def _passing(programs: ProgramSet, opened: ExitStack) -> ProgramSet:
    """Programs that pass every packet, in the slots of others."""
    slots = programs.programs
    return ProgramSet({slot: opened.enter_context(load_passing(slot)).fd for slot in slots})


def _recorded_as(
    match: Match, link: Link, owner: str, earlier: RecordedLink | None
) -> RecordedLink:
    """The record of a link as it is now; ``earlier`` is the one that there was of it."""
    before = None
    if link.waits and earlier:
        # of a swap that waits, or of the one before it
        before = replace(earlier, before=None) if match.changes else earlier.before
    return replace(
        recorded(match.declared, match.identity, match.digests, owner),
        link=link.id,
        generation=link.generation,
        ids=program_ids(link),
        before=before,
        undone=None if match.changes else undone(earlier, link),
    )
