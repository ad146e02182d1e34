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
from ipttctl.programs.sources import source_text
from ipttctl.state.journal import RECORD, Record, RecordedLink, locked
from ipttctl.state.maps import MapChange, MapDifference
from ipttctl.state.model import State, Step, about
from ipttctl.state.plan import (
    Match,
    Plan,
    detach_steps,
    link_steps,
    live_maps,
    make_plan,
    map_steps,
    new_maps,
    rename_steps,
)
from ipttctl.state.undo import Undo, held_back
from ipttproto.family import limit

_MOST: Final = limit("MAX_CHANGES")


def diff_state(
    controller: Controller,
    state: State,
    *,
    prune: bool = False,
    record: Path = RECORD,
    on_compile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Step]:
    """List the steps that ``apply_state`` would take. Nothing is changed or loaded.

    ``warn`` is called with a sentence for each declared link that somebody adopted: it is left
    alone, and takes no step.

    The maps of programs still to be loaded do not exist yet: their declared contents are part of
    the link's own step.

    Raises:
        UsageError: a namespace or a device is missing.
        ProgramError: a program or a map is missing, or a source does not compile.
        PrivilegeError: the caller lacks CAP_NET_ADMIN, or for maps CAP_SYS_ADMIN.
    """
    plan = make_plan(controller, state, Record.read(record), prune, on_compile)
    _warn(plan, warn)
    with ExitStack() as opened:
        differences = [
            (match, name, difference)
            for match in plan.matches
            if match.kept
            for name, difference in live_maps(match, opened)
        ]
        return [
            *map_steps(differences),
            *link_steps(plan),
            *detach_steps(plan),
            *rename_steps(plan),
        ]


def apply_state(
    controller: Controller,
    state: State,
    *,
    prune: bool = False,
    record: Path = RECORD,
    on_compile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
    reason: str | None = None,
) -> list[Step]:
    """Make the machine match a declared state; returns the steps taken, empty if it did already.

    Everything is loaded first. Then maps are changed, new links attached, all changed links swapped
    in one transaction, surplus links detached, and links given their names. If anything fails up to
    and including the transaction, everything is undone. With ``prune``, persistent links that apply
    did not make are surplus too. ``warn`` is as for ``diff_state``, and called for maps that are
    not kept. All changes of links have the ``reason``.

    A process that is killed half way leaves the links it has attached. The next apply makes them
    the declared ones, or detaches them.

    Raises:
        UsageError, ProgramError, PrivilegeError: as for ``diff_state``.
        ExpectationError: somebody else changed a link meanwhile.
        KernelError: the module refuses; the message names the link.
    """
    with locked(record):
        plan = make_plan(controller, state, Record.read(record), prune, on_compile)
        _warn(plan, warn)
        if sum(bool(match.changes) for match in plan.matches) > _MOST:
            raise UsageError(
                f"more than {_MOST} links change, and they can only do so together",
                "change fewer at a time",
            )
        return _Application(controller, plan, record, warn, reason).run(on_compile)


def _warn(plan: Plan, warn: Callable[[str], None] | None) -> None:
    for one in plan.adopted:
        if warn:
            warn(str(one))


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

    def run(self, on_compile: Callable[[], None] | None) -> list[Step]:
        """Take all steps; see ``apply_state``."""
        plan = self._plan
        with ExitStack() as opened:
            sets: dict[str, ProgramSet] = {}
            differences: list[tuple[Match, str, MapDifference]] = []
            for match in plan.matches:
                name = match.declared.name
                with about(name):
                    if match.kept:
                        found = list(live_maps(match, opened))
                    else:
                        sets[name] = self._open(match, opened, on_compile)
                        check_types(sets[name].programs)
                        found = list(new_maps(match, sets[name], opened))
                    differences += [(match, map_name, entry) for map_name, entry in found]
            steps = [*map_steps(differences), *link_steps(plan)]
            with held_back() as signals:
                undo = Undo(signals)
                try:
                    self._change(sets, differences, undo, signals.check)
                    signals.check()
                    self._swap(sets)
                except BaseException as error:
                    undo.run(error)
                    # links that could not be removed again are remembered
                    if any(match.link is None for match in plan.matches):
                        plan.record.write(self._record)
                    raise
                self._now |= {m.declared.name: m.link for m in plan.matches if m.link and m.kept}
                self._remember(plan.surplus)
        for _, link in plan.surplus:
            with suppress(LinkGoneError):
                self._controller.detach(
                    link.id, expect_generation=link.generation, reason=self._reason
                )
        if plan.surplus:
            self._remember(())
        for match in plan.matches:
            if match.renamed or match.name_taken:
                name = match.declared.name
                with about(name), suppress(LinkGoneError):
                    self._controller.rename(self._now[name].id, name)
        made = [
            replace(step, link=self._now[step.name].id) if step.name in self._now else step
            for step in steps
        ]
        return [*made, *detach_steps(plan), *rename_steps(plan)]

    def _open(
        self, match: Match, opened: ExitStack, on_compile: Callable[[], None] | None
    ) -> ProgramSet:
        """Load the programs of a link, with the maps that it keeps."""
        declared, keep = match.declared, None
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
        if new:
            pending = tuple(self._pending(match, sets[match.declared.name]) for match in new)
            Record((*self._plan.record.links, *pending)).write(self._record)
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
                    sets[declared.name],
                    persistent=True,
                    name=None if match.name_taken else declared.link_name,
                    labels=declared.labels or None,
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
        changed = [(m.declared, m.link) for m in self._plan.matches if m.link and m.changes]
        if changed:
            swapped = self._controller.transact(
                [
                    Swap(link.id, sets[to.name], link.generation, labels=to.labels)
                    for to, link in changed
                ],
                reason=self._reason,
            )
            self._now |= {to.name: link for (to, _), link in zip(changed, swapped, strict=True)}

    def _remember(self, surplus: Sequence[tuple[str | None, Link]]) -> None:
        """Record the links as they are now; surplus and adopted ones until they are gone."""
        going = {link.id for _, link in surplus} | {one.link.id for one in self._plan.adopted}
        Record(
            (
                *(entry for entry in self._plan.record.links if entry.link in going),
                *(_recorded(match, self._now[match.declared.name]) for match in self._plan.matches),
            )
        ).write(self._record)

    def _pending(self, match: Match, programs: ProgramSet) -> RecordedLink:
        ids = {s.name.lower(): syscalls.program_info(fd).id for s, fd in programs.programs.items()}
        return RecordedLink(
            match.declared.name,
            link=0,
            generation=0,
            place=match.identity,
            programs={},
            after=self._plan.highest,
            pid=os.getpid(),
            ids=ids,
        )


def _recorded(match: Match, link: Link) -> RecordedLink:
    declared = match.declared
    wanted = declared.programs
    return RecordedLink(
        declared.name,
        link.id,
        link.generation,
        link.hook.identity(),
        {slot.name.lower(): source_text(s) for slot, s in wanted.sources.items()},
        {slot.name.lower(): digest for slot, digest in match.digests.items()},
        wanted.filter,
        {name: [list(entry) for entry in m.entries] for name, m in declared.maps.items()},
        constants=wanted.constants,
        keep_maps=declared.keep_maps,
    )
