# SPDX-License-Identifier: GPL-2.0
"""Roll-outs as one host knows them: the state on trial, that of before, and those undone.

They are kept in a file, so that an agent that is started again goes on with them. What nobody has
kept in time is undone by the agent: the module does so with swaps, but not with links that are new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from ipttctl.bpf.private_dirs import make_private
from ipttctl.errors import IpttctlError, os_reason
from ipttctl.fleet.grants import RefusedError
from ipttctl.fleet.host import AgentHost, FleetLink, TrialTerms
from ipttctl.fleet.requests import ApplyRequest, Declared, guards_of
from ipttctl.fleet.whole_file import write_whole

Steps: TypeAlias = list[dict[str, Any]]
"""Steps that were taken, as ``apply`` prints them."""

_FILE: Final = "rollout.json"
_MOST_UNDONE: Final = 64
_STARTED_AGAIN: Final = "the host was started again"


class HostTrial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The state of a roll-out. ``links`` it made are by name; ``swapped`` those it swapped."""

    rollout: str
    declared: dict[str, Declared]
    boot: str
    kept: bool = False
    links: dict[str, int] | None = None
    """None until it was applied as a whole."""
    swapped: list[int] = []
    until: float | None = None
    """When it is undone unless it is kept, by the clock that counts from boot."""
    generations: dict[int, int] = {}
    """The generations of its links when it was kept, by their numbers."""


class RolloutJournal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of the file. ``base`` is what the fleet declared before; None: nobody knows."""

    base: dict[str, Declared] | None = None
    trial: HostTrial | None = None
    undone: list[str] = []
    why: str = ""
    """The reason why the last of them was undone."""


_DECODER: Final = msgspec.json.Decoder(RolloutJournal)


class Trials:
    """Roll-outs on this host. All methods are for the host's own thread."""

    def __init__(
        self,
        host: AgentHost,
        directory: Path,
        reason: str,
        took: Callable[[Steps], None] = lambda _: None,
        *,
        allowed: bool = True,
    ) -> None:
        """Keep the file in the directory of objects; ``took`` is told of steps on the host.

        ``allowed`` is whether others may still have this host apply a state: without that nothing
        comes back that is not there.
        """
        self._host = host
        self._took = took
        self._directory = directory
        self._reason = reason
        self._allowed = allowed
        self._until: float | None = None

    @property
    def due(self) -> bool:
        """Whether the state on trial should have been kept by now. For any thread."""
        until = self._until
        return until is not None and _now() > until

    def expire(self) -> str:
        """Undo what nobody has kept in time; returns a sentence on it, empty if there is none.

        Called at the start too: an agent that was killed may have missed the time.
        """
        journal = self._read()
        trial = journal.trial
        if trial is None or trial.kept:
            return ""
        if trial.boot != self._host.facts().boot:
            # no link outlives that, those of before neither: what comes back is rolled out
            journal = msgspec.structs.replace(journal, base={}, trial=None)
            self._write(_with_undone(journal, trial.rollout, _STARTED_AGAIN))
            return f"roll-out {trial.rollout} is over: {_STARTED_AGAIN}"
        if trial.until is None or _now() <= trial.until:
            return ""
        why = self._wrong(trial, self._host.watched()) or "it was not kept in time"
        self._undo(trial.rollout, why, self._back(journal, trial))
        return f"roll-out {trial.rollout} was not kept in time, and is undone"

    def apply(self, request: ApplyRequest) -> Steps:
        """Make a state that of the fleet here; returns the steps taken.

        Of a roll-out it does so once: afterwards there is nothing to do.

        Raises:
            RefusedError: another roll-out is on trial, or this one was undone.
        """
        journal = self._read()
        trial = journal.trial
        terms = TrialTerms(request.rollback_after, tuple(guards_of(request)))
        if request.rollout is None:
            if trial and not trial.kept:
                raise RefusedError(f"roll-out {trial.rollout} is on trial here")
            steps = self._apply(request.links, terms)
            self._write(RolloutJournal(base=request.links, undone=journal.undone, why=journal.why))
            return steps
        if request.rollout in journal.undone:
            raise RefusedError(f"roll-out {request.rollout} was undone here")
        if trial and trial.rollout == request.rollout:
            if trial.declared != request.links:
                raise RefusedError(f"roll-out {trial.rollout} has another state here")
            if not trial.kept:
                self._check(trial)
        else:
            trial = HostTrial(
                rollout=request.rollout,
                declared=request.links,
                boot=self._host.facts().boot,
                until=None if terms.rollback is None else _now() + terms.rollback,
            )
            base = self._base(journal)
            journal = msgspec.structs.replace(journal, base=base, trial=trial)
            self._write(journal)
        if trial.kept:
            return []
        steps = self._apply(request.links, terms)
        if terms.rollback is not None:
            # the module's time began by now at the latest
            trial = msgspec.structs.replace(trial, until=_now() + terms.rollback)
        now = self._host.watched()
        # those that wait were swapped by an agent that was killed before it could note it; of
        # those that were swapped now, a guard may have been violated already
        made = _made(steps)
        swapped = {one.link for one in now if one.waits} | {*trial.swapped, *made.values()}
        # not those that are to go, and may be gone before it is noted that all is kept
        there = {one.name: one.link for one in now} | (trial.links or {}) | made
        links = {name: there[name] for name in request.links if name in there}
        trial = msgspec.structs.replace(trial, links=links, swapped=sorted(swapped))
        self._write(msgspec.structs.replace(journal, trial=trial))
        return steps

    def confirm(self, rollout: str) -> dict[str, Any]:
        """Keep what a roll-out applied here.

        Raises:
            RefusedError: it is not on trial here, or not any more.
        """
        journal = self._read()
        trial = journal.trial
        if trial is None or trial.rollout != rollout or trial.links is None:
            raise RefusedError(f"roll-out {rollout} is not on trial here")
        if trial.kept:
            return {"steps": []}
        self._check(trial)
        steps = self._host.confirm(_state(trial.declared), self._directory, self._reason)
        self._took(steps)
        ours = set(trial.links.values())
        now = {one.link: one.generation for one in self._host.watched() if one.link in ours}
        kept = msgspec.structs.replace(trial, kept=True, generations=now)
        self._write(msgspec.structs.replace(journal, trial=kept))
        return {"steps": steps}

    def rollback(self, rollout: str) -> dict[str, Any]:
        """Make all as it was before a roll-out, and refuse to apply it from now on."""
        return {"steps": self._undo(rollout, "it was undone here", self._before(rollout))}

    def status(self) -> dict[str, Any]:
        """The last roll-out here, what became of it, and the links that the fleet declared."""
        journal = self._read()
        trial = journal.trial
        links = self._host.watched()
        state, why = "none", ""
        rollout = trial.rollout if trial else None
        if trial is None and journal.undone:
            rollout, state, why = journal.undone[-1], "undone", journal.why
        if trial:
            state = "kept" if trial.kept else "trial"
            why = self._wrong(trial, links)
            if why and not trial.kept:
                state = "failed"
        return {
            "rollout": rollout,
            "state": state,
            "why": why,
            "boot": self._host.facts().boot,
            "links": [asdict(one) for one in links],
        }

    def needed(self, rollout: str) -> set[str]:
        """The digests of the objects to which undoing a roll-out goes back."""
        return _digests(self._before(rollout))

    def used(self) -> set[str]:
        """The digests of the objects of before, and of those of now."""
        journal = self._read()
        now = journal.trial.declared if journal.trial else {}
        return _digests(journal.base or {}) | _digests(now)

    def _undo(self, rollout: str, why: str, base: Mapping[str, Declared]) -> Steps:
        journal = self._read()
        steps: Steps = []
        if journal.trial and journal.trial.rollout == rollout:
            steps = self._host.undo(_state(base), self._directory, self._reason)
            self._took(steps)
            journal = msgspec.structs.replace(journal, base=dict(base), trial=None)
        self._write(_with_undone(journal, rollout, why))
        return steps

    def _before(self, rollout: str) -> dict[str, Declared]:
        """The state to which undoing a roll-out goes back; none if it is not here."""
        journal = self._read()
        trial = journal.trial
        return self._back(journal, trial) if trial and trial.rollout == rollout else {}

    def _back(self, journal: RolloutJournal, trial: HostTrial) -> dict[str, Declared]:
        """The state before a trial, as far as it may come back.

        Swaps that wait are rolled back in any case, and what was not touched stays.
        """
        base = journal.base or {}
        if self._allowed:
            return base
        there = {one.name: one for one in self._host.watched()}
        return {
            name: link
            for name, link in base.items()
            if (one := there.get(name))
            and (one.waits or one.undone or one.link not in trial.swapped)
        }

    def _apply(self, links: Mapping[str, Declared], terms: TrialTerms) -> Steps:
        steps = self._host.apply(_state(links), self._directory, terms, self._reason)
        self._took(steps)
        return steps

    def _base(self, journal: RolloutJournal) -> dict[str, Declared]:
        """The state before a roll-out that begins."""
        if journal.trial:
            if not journal.trial.kept:
                raise RefusedError(f"roll-out {journal.trial.rollout} is on trial here")
            return journal.trial.declared
        if journal.base is None and (links := self._host.watched()):
            raise RefusedError(
                f"nobody knows what declared link {links[0].name} here, to go back to it",
                "have the host apply a state without a roll-out first",
            )
        return journal.base or {}

    def _check(self, trial: HostTrial) -> None:
        if why := self._wrong(trial, self._host.watched()):
            raise RefusedError(f"roll-out {trial.rollout} failed here: {why}")

    def _wrong(self, trial: HostTrial, links: list[FleetLink]) -> str:
        """The reason why the state is not what was applied, or kept; empty if it is."""
        if trial.boot != self._host.facts().boot:
            return _STARTED_AGAIN
        there = {one.link: one for one in links}
        for name, number in (trial.links or {}).items():
            if number not in there:
                return f"link {name} is not there any more"
        for number in trial.swapped:
            if why := there[number].undone if number in there else "":
                return f"link {there[number].name} was swapped back: {why}"
        for number, generation in trial.generations.items():
            if number in there and there[number].generation != generation:
                return f"link {there[number].name} was swapped after it was kept"
        return ""

    def _read(self) -> RolloutJournal:
        journal = self._stored()
        self._note(journal)
        return journal

    def _note(self, journal: RolloutJournal) -> None:
        trial = journal.trial
        self._until = trial.until if trial and not trial.kept else None

    def _stored(self) -> RolloutJournal:
        try:
            content = (self._directory / _FILE).read_bytes()
        except FileNotFoundError:
            return RolloutJournal()
        except OSError as error:
            raise IpttctlError(
                f"cannot read {self._directory / _FILE}: {os_reason(error)}"
            ) from None
        try:
            return _DECODER.decode(content)
        except msgspec.DecodeError as error:
            raise IpttctlError(
                f"{self._directory / _FILE} is damaged: {error}",
                "remove it once the links are as they should be",
            ) from None

    def _write(self, journal: RolloutJournal) -> None:
        """Write the file, whole or not at all."""
        temporary = self._directory / f".{_FILE}.tmp"
        try:
            make_private(self._directory)
            write_whole(self._directory / _FILE, temporary, msgspec.json.encode(journal))
            self._note(journal)
        except OSError as error:
            raise IpttctlError(
                f"cannot write {self._directory / _FILE}: {os_reason(error)}"
            ) from None


def _with_undone(journal: RolloutJournal, rollout: str, why: str) -> RolloutJournal:
    """The journal once a roll-out was undone, for a reason."""
    if rollout in journal.undone:
        return journal
    undone = [*journal.undone, rollout][-_MOST_UNDONE:]
    return msgspec.structs.replace(journal, undone=undone, why=why)


def _made(steps: Steps) -> dict[str, int]:
    """The links that steps have made or swapped, by name: new ones may have been swapped too."""
    return {one["name"]: one["link"] for one in steps if one["action"] in ("attach", "swap")}


def _now() -> float:
    """The time since boot, in which the host may have slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _digests(links: Mapping[str, Declared]) -> set[str]:
    return {one.digest for link in links.values() for one in link.programs.values()}


def _state(links: Mapping[str, Declared]) -> dict[str, Any]:
    return {"links": {name: link.entry() for name, link in links.items()}}
