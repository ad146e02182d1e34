# SPDX-License-Identifier: GPL-2.0
"""This host, as the agent needs it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ipttctl.cli.agent_scope import AgentScope
from ipttctl.cli.agent_trace import LocalTrace
from ipttctl.cli.options import tell_compiling
from ipttctl.cli.printing import note
from ipttctl.cli.walk import verified_for
from ipttctl.errors import IpttctlError, LinkGoneError, SwapRolledBackError, UsageError
from ipttctl.events.describe import member
from ipttctl.fleet.host import KEPT, Facts, FleetLink, TraceOrder, TrialTerms
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.losses import Losses
from ipttctl.link.model import CpuStatus, Link
from ipttctl.paths import VERSION
from ipttctl.show.render_json import link_object
from ipttctl.state import DeclaredLink, State, Step, Terms
from ipttctl.state.apply import apply_state, diff_state
from ipttctl.state.file import read_state
from ipttctl.state.steps import step_object
from ipttctl.system import netns
from ipttctl.system.host_identity import HostIdentity
from ipttctl.system.inherited import Inherited
from ipttproto import Counter, EventBatch, SwapOutcome

_UNDONE: Final[Mapping[int | None, str]] = {
    SwapOutcome.ROLLBACK: "it was not confirmed in time",
    SwapOutcome.ROLLBACK_REQUEST: "somebody had it rolled back",
    SwapOutcome.ROLLBACK_GUARD: "a guard did not hold",
}
_ENDS: Final[Mapping[int | None, str]] = {
    None: KEPT,
    SwapOutcome.CONFIRMED: KEPT,
    SwapOutcome.ROLLBACK: "expired",
    SwapOutcome.ROLLBACK_REQUEST: "rolled back",
    SwapOutcome.ROLLBACK_GUARD: "guard",
}


class LocalSource:
    """The events of all links, on a connection of its own."""

    def __init__(self) -> None:
        """Subscribe."""
        self._controller = Controller()
        try:
            self._events = self._controller.events()
        except BaseException:
            self._controller.close()
            raise

    @property
    def losses(self) -> Losses:
        """The losses so far, by cause."""
        return self._events.losses

    def read(self, timeout: float | None = None) -> Sequence[EventBatch]:
        """Wait for events, at most ``timeout`` seconds."""
        return self._events.read(timeout)

    def missing(self) -> Sequence[CpuStatus]:
        """How far events have come by now, if some were missed since the last call; else none."""
        return self._events.missing()

    def drain(self, settle: float, limit: float) -> Iterator[EventBatch]:
        """Read the events emitted until now."""
        return self._events.drain(settle, limit)

    @property
    def last(self) -> Sequence[CpuStatus]:
        """How far those have come that were to be read."""
        return self._events.last

    def close(self) -> None:
        """Unsubscribe."""
        self._events.close()
        self._controller.close()


class LocalHost:
    """Does each command on a connection of its own: the module may have been loaded again."""

    def __init__(self, namespace: str | None = None) -> None:
        """Be for a network namespace alone, if one is named."""
        self._scope = AgentScope(namespace)

    def facts(self) -> Facts:
        """The host as it is now."""
        identity = HostIdentity.now()
        module = ""
        features: tuple[str, ...] = ()
        try:
            with Controller(check=False) as controller:
                status = controller.status()
                module = status.version
                features = tuple(one.name.lower() for one in status.features if one.name)
        except IpttctlError:
            # the reader says why there are no events
            pass
        within = None if self._scope.namespace is None else self._within()
        return Facts(os.uname().release, identity.boot_id, VERSION, module, features, within)

    def clock(self) -> int:
        """The clock (ns) that events have their times from."""
        return time.monotonic_ns()

    def source(self) -> LocalSource:
        """Subscribe to events."""
        return LocalSource()

    def links(self) -> list[dict[str, Any]]:
        """All links, or those of the namespace."""
        within = self._within()
        with Controller() as controller:
            found = [link for link in controller.links() if self._scope.has(link, within)]
            return [link_object(link) for link in found]

    def trace(self, order: TraceOrder) -> LocalTrace:
        """Attach the links of a trace."""
        return LocalTrace(order, self._scope.namespace)

    def detach(self, link: int | str, reason: str) -> dict[str, Any]:
        """Detach a link."""
        with Controller() as controller:
            if isinstance(link, str):
                return link_object(controller.detach(self._scope.inside(link), reason=reason))
            # numbers are the module's, and names are not
            if not self._scope.has(controller.link(link), self._within()):
                raise UsageError(f"link {link} is not in namespace {self._scope.namespace}")
            return link_object(controller.detach(link, reason=reason))

    def attach(self, link: Mapping[str, Any], directory: Path, reason: str) -> dict[str, Any]:
        """Attach a persistent link."""
        wanted = self._declared(link, directory)
        with Controller() as controller:
            verified_for(controller, [wanted.hook])
            with wanted.programs.open(tell_compiling) as programs:
                made = controller.attach(
                    wanted.hook,
                    programs,
                    persistent=True,
                    name=wanted.name,
                    labels=wanted.labels,
                    reason=reason,
                )
            return link_object(made)

    def swap(
        self, link: Mapping[str, Any], directory: Path, rollback: float | None, reason: str
    ) -> dict[str, Any]:
        """Swap the programs of a link, which has to be where the request says."""
        wanted = self._declared(link, directory)
        with Controller() as controller:
            found = controller.link(wanted.name)
            if found.hook.gone is not None or found.hook.identity() != wanted.hook.identity():
                raise UsageError(
                    f"link {wanted.name} is not at {_place(wanted.hook)}, but {_place(found.hook)}",
                    "a swap takes the hook, namespace and mode that the link has",
                )
            with wanted.programs.open(tell_compiling) as programs:
                made = controller.swap(
                    found.id,
                    programs,
                    # nobody else's, which could be elsewhere
                    expect_generation=found.generation,
                    rollback_after=rollback,
                    reason=reason,
                )
            return link_object(made)

    def apply(
        self, state: Mapping[str, Any], directory: Path, trial: TrialTerms, reason: str
    ) -> list[dict[str, Any]]:
        """Make the links that the fleet declares those of a state."""
        terms = Terms(owner=self._scope.owner, rollback_after=trial.rollback, guards=trial.guards)
        with Controller() as controller:
            return self._apply(controller, self._state(state, directory), terms, reason)

    def confirm(
        self, state: Mapping[str, Any], directory: Path, reason: str
    ) -> list[dict[str, Any]]:
        """Keep the swaps that wait of the fleet's links, which have to be as in a state."""
        with Controller() as controller:
            terms = Terms(owner=self._scope.owner, confirm=True)
            return self._apply(controller, self._state(state, directory), terms, reason)

    def undo(self, state: Mapping[str, Any], directory: Path, reason: str) -> list[dict[str, Any]]:
        """Roll the fleet's swaps that wait back, and make its links those of a state."""
        with Controller() as controller:
            for transaction in {link.transaction for link in self._fleet(controller) if link.waits}:
                # the time may have passed, or a guard been violated, since they were listed
                with suppress(LinkGoneError, SwapRolledBackError):
                    controller.rollback(transaction=transaction, reason=reason)
            return self._apply(
                controller, self._state(state, directory), Terms(owner=self._scope.owner), reason
            )

    def watched(self) -> list[FleetLink]:
        """The links that the fleet declared."""
        with Controller() as controller:
            return [self._watched(link) for link in self._fleet(controller)]

    def swapped(self, links: Collection[int]) -> list[FleetLink]:
        """The links with these numbers that are there."""
        with Controller() as controller:
            return [self._watched(link) for link in controller.links() if link.id in links]

    def confirm_link(self, link: str) -> dict[str, Any]:
        """Keep the swap of a link that waits."""
        with Controller() as controller:
            return link_object(controller.confirm(self._scope.inside(link)))

    def rollback_link(self, link: str, reason: str) -> dict[str, Any]:
        """Undo the swap of a link that waits."""
        with Controller() as controller:
            named = self._scope.inside(link)
            found = controller.rollback(named, reason=reason)
            return link_object(next((one for one in found if one.name == named), found[0]))

    def _within(self) -> int:
        """The cookie of the agent's namespace; 0 if it has none, or that is not there."""
        if self._scope.namespace is None:
            return 0
        try:
            return netns.resolve(self._scope.namespace).cookie
        except IpttctlError:
            # it may be made later
            return 0

    def _apply(
        self, controller: Controller, wanted: State, terms: Terms, reason: str
    ) -> list[dict[str, Any]]:
        verified_for(controller, (link.hook for link in wanted.links))
        steps = apply_state(
            controller, wanted, terms=terms, on_compile=tell_compiling, warn=note, reason=reason
        )
        return self._objects(steps)

    def diff(self, state: Mapping[str, Any], directory: Path) -> list[dict[str, Any]]:
        """The steps that ``apply`` would take."""
        wanted = self._state(state, directory)
        with Controller() as controller:
            return self._objects(
                diff_state(
                    controller,
                    wanted,
                    terms=Terms(owner=self._scope.owner),
                    on_compile=tell_compiling,
                    warn=note,
                )
            )

    def _fleet(self, controller: Controller) -> list[Link]:
        """The links that the fleet declared."""
        return [link for link in controller.links() if self._scope.declares(link)]

    def _watched(self, link: Link) -> FleetLink:
        counts = asdict(link.stats) | {
            "runs": sum(slot.runs for slot in link.stats.slots.values()),
            "agreements": link.stats.agreed,
            "disagreements": link.stats.disagreed,
        }
        violation = f": {link.violation}" if link.violation else ""
        return FleetLink(
            name=self._scope.outside(link.name or str(link.id)),
            link=link.id,
            generation=link.generation,
            waits=link.waits,
            left=link.rollback_in,
            undone=_UNDONE.get(link.outcome, "") + violation,
            counters={one.name.lower(): counts[one.name.lower()] for one in Counter},
            end=_ENDS.get(link.outcome, ""),
        )

    def _declared(self, link: Mapping[str, Any], directory: Path) -> DeclaredLink:
        entry = {key: value for key, value in link.items() if key != "name"}
        [found] = self._state({"links": {str(link["name"]): entry}}, directory).links
        return found

    def _state(self, state: Mapping[str, Any], directory: Path) -> State:
        written = json.dumps(self._scope.state(state["links"]), ensure_ascii=False)
        # YAML does not know JSON's pairs of halves, nor every character as it is
        text = "".join(one if " " <= one <= "~" else f"\\U{ord(one):08x}" for one in written)
        # no descriptor of this process can be meant
        return read_state(text=text, directory=directory, inherited=Inherited(frozenset()))

    def _objects(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        objects = (dict(step_object(step)) for step in steps)
        return [{**one, "name": self._scope.outside(one["name"] or "") or None} for one in objects]


def _place(hook: Hook) -> str:
    """A hook in words, with its mode, if it has one."""
    return f"{hook} in mode {member(hook.mode)}" if isinstance(hook, NfHook) else str(hook)
