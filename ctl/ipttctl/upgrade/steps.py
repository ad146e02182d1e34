# SPDX-License-Identifier: GPL-2.0
"""The steps of an upgrade, each of which may be the last one of a process that is killed.

    journal, pins   nothing has changed: forgotten by the next upgrade
    park            the links are at no hook; the module has their last counters
    journal         and so has the journal
    remove, insert  one module goes, the other comes, with the numbers of the first
    restore         link by link, each as it was
    restored        anybody may make links again
    discard         the journal goes

From park on, the next upgrade goes on where this one was. If the new module does not load, or does
not take a link, the journal says so, and the same steps lead back to the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ipttctl.errors import IpttctlError, ModuleError
from ipttctl.host import builds, module, walk
from ipttctl.link.controller import Controller
from ipttctl.link.restore import LinkRecord, Restorer
from ipttctl.state.journal import RECORD, carry_over
from ipttctl.upgrade.journal import Journal, ModuleFile, Phase, discard, since_boot

REASON: Final = "module upgrade"
"""The reason in the notifications of links that are parked."""

Told = Callable[[str], None]
"""Is called with sentences about what takes long."""


@dataclass(frozen=True)
class UpgradeOutcome:
    """The end of an upgrade.

    ``gaps`` are, by id of a link, the seconds in which it was at no hook; unknown for links that an
    upgrade restored before it was killed. ``back`` says why the module of before is loaded; it is
    empty if the new one is.
    """

    old: ModuleFile
    new: ModuleFile
    links: tuple[LinkRecord, ...] = ()
    gaps: dict[int, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    back: str = ""

    @property
    def gap(self) -> float:
        """The longest of the gaps, in seconds; 0 without links."""
        return max(self.gaps.values(), default=0.0)


def complete(journal: Journal, told: Told) -> UpgradeOutcome:
    """Go on with an upgrade whose links are parked, wherever it was, and end it.

    Raises:
        ModuleError: neither module takes the links; the journal stays.
    """
    if journal.phase is Phase.FORWARD:
        try:
            gaps = _reach(journal, journal.new, told)
        except IpttctlError as error:
            if not journal.old.copy:
                raise ModuleError(
                    f"{error.problem}; there is no file of the module before",
                    "mend it and run `ipttctl module upgrade` again: the links wait",
                ) from None
            journal = replace(Journal.read() or journal, phase=Phase.BACK, failure=str(error))
            journal.write()
        else:
            return _finish(journal, journal.new, gaps)
    try:
        gaps = _reach(journal, journal.old, told)
    except IpttctlError as error:
        raise ModuleError(
            f"{journal.failure}; and the module before does not take its links: {error.problem}",
            "mend it and run `ipttctl module upgrade` again: the links wait",
        ) from None
    return _finish(journal, journal.old, gaps)


def _reach(journal: Journal, target: ModuleFile, told: Told) -> dict[int, float]:
    """Have a module loaded with all links of the journal; returns the gap of each."""
    loaded = builds.running()
    if loaded is None or loaded.hex() != target.build:
        if loaded is not None:
            journal = _leave(journal, loaded.hex())
        numbers = journal.numbers
        module.insert(
            Path(target.copy),
            f"restore_link={numbers.last_link}",
            f"restore_sequence={numbers.sequence}",
        )
    return _restore(journal, target, told)


def _leave(journal: Journal, loaded: str) -> Journal:
    """Unload a module, whose links are parked first if they are not; their counters are kept."""
    if loaded not in {journal.old.build, journal.new.build}:
        raise ModuleError(
            "an ipttrace module is loaded that this upgrade is not about",
            "unload it: `ipttctl module unload --force`",
        )
    with Restorer() as restorer:
        if not restorer.status().restoring:
            raise ModuleError(
                "an ipttrace module was loaded meanwhile, by something else than this upgrade",
                "unload it: `ipttctl module unload --force`",
            )
        if restorer.links():
            restorer.park(None, force=True, reason=REASON)
        counters, status = restorer.parked(), restorer.status()
    journal = replace(
        journal.with_counters(counters),
        numbers=replace(
            journal.numbers,
            sequence=max(journal.numbers.sequence, status.links_sequence),
            last_link=max(journal.numbers.last_link, status.last_link),
        ),
    )
    journal.write()
    module.remove()
    return journal


def _restore(journal: Journal, target: ModuleFile, told: Told) -> dict[int, float]:
    """Restore the links that are not there yet, those at chains last; returns the gap of each."""
    gaps: dict[int, float] = {}
    with Restorer() as restorer:
        if not restorer.status().restoring:
            # it was done, but for the journal
            return gaps
        there = {link.id for link in restorer.links()}
        missing = [record for record in journal.records if record.link.id not in there]
        for record in sorted(missing, key=lambda one: one.link.hook.NEEDS_WALK):
            if record.link.hook.NEEDS_WALK:
                _verify(target, told, spine=record.link.hook.NEEDS_SPINE_WALK)
            found = restorer.restore(record)
            if not record.same(found):
                raise ModuleError(
                    f"link {found.name or found.id} is not as it was before", "please report it"
                )
            gaps[found.id] = since_boot() - journal.parked
    return gaps


def _verify(target: ModuleFile, told: Told, *, spine: bool) -> None:
    """Have the walks verified that a link needs, unless that is known of these builds."""
    with Controller(check=False) as controller:
        if walk.known(controller, spine=spine):
            return
        told(f"verifying the walks of module {target.version}; links by them wait for it")
        # there are such links: somebody trusted the module before on this kernel
        uncompared = bool(walk.uncompared(controller.status()))
        report = walk.verify(controller, although_not_compared=uncompared)
    if report:
        raise ModuleError("the module's walks do not do what the kernel does")


def _finish(journal: Journal, target: ModuleFile, gaps: dict[int, float]) -> UpgradeOutcome:
    """End restoring, and forget the journal."""
    with Restorer() as restorer:
        if restorer.status().restoring:
            restorer.restored()
    carry_over(RECORD, journal.life, {record.link.id for record in journal.records})
    if target.copy:
        builds.keep(Path(target.copy))
    discard()
    return UpgradeOutcome(
        journal.old, journal.new, journal.records, gaps, journal.left_out, journal.failure
    )
