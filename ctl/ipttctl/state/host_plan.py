# SPDX-License-Identifier: GPL-2.0
"""Plans that are written down: the steps, and the state of the host that they were made for.

A plan is one text of JSON lines. The first is about the host: its boot and the life of the module,
the links that the plan is about, the places and the programs that are declared, and the declared
state itself. The steps follow, one a line. It is carried out only if the host is still so: then the
same steps come out when it is planned again, and that is compared too. From then on each change is
made only if the link is of the generation that the plan saw.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf import syscalls
from ipttctl.errors import (
    ExpectationError,
    HostChangedError,
    KernelError,
    LinkGoneError,
    NameTakenError,
    OtherOwnerError,
    PlaceMissingError,
    ProgramError,
    SwapConfirmedError,
    SwapRolledBackError,
    SwapWaitingError,
    UsageError,
)
from ipttctl.link.condition import Condition
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link
from ipttctl.programs.sources import is_file, open_sources
from ipttctl.show.stream_head import identity
from ipttctl.state.apply import apply_state, planned, visible_steps
from ipttctl.state.file import DeclaredFile, state_object
from ipttctl.state.journal import RECORD
from ipttctl.state.model import State, Step, Terms
from ipttctl.state.owners import parse_owner
from ipttctl.state.plan import Match, Plan
from ipttctl.state.steps import step_object
from ipttctl.system.host_identity import HostIdentity
from ipttctl.system.inherited import Inherited

_TYPE: Final = "plan"
_FORMAT: Final = 1
_HOST: Final = ("host", "boot_id", "module_life")
_KEYS: Final = {
    "host": str,
    "boot_id": str,
    "module_life": int,
    "terms": dict,
    "links": list,
    "places": dict,
    "programs": dict,
    "state": dict,
}
_TERMS: Final[Mapping[str, tuple[type, ...]]] = {
    "owner": (str,),
    "take": (bool,),
    "prune": (bool,),
    "confirm": (bool,),
    "rollback_after": (int, float, type(None)),
}
_GUARDS: Final = "guards"
#: refusals of what somebody else has done since
_LATE: Final = (
    ExpectationError,
    LinkGoneError,
    SwapConfirmedError,
    SwapRolledBackError,
    SwapWaitingError,
)


def plan_state(
    controller: Controller,
    state: State,
    *,
    terms: Terms,
    record: Path = RECORD,
    on_compile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[list[dict[str, Any]], list[Step]]:
    """The objects of a plan for ``apply_plan``, and its steps; see ``diff_state``."""
    state = _absolute(state)
    plan, steps = planned(controller, state, terms, record, on_compile=on_compile, warn=warn)
    return [_seen(plan, state), *map(step_object, steps)], steps


@dataclass(frozen=True)
class WrittenPlan:
    """A plan that was read: the host that it saw, its terms and state, and its steps."""

    head: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    terms: Terms
    state: State

    @classmethod
    def parse(cls, text: str, inherited: Inherited | None = None) -> Self:
        """Parse a plan, and compare its host with the present one.

        Raises:
            UsageError: this is no plan, or not one of this version.
            HostChangedError: it is of another host, boot, or life of the module.
            ProgramError: it names a descriptor that is not open.
        """
        head, *steps = _objects(text)
        _compare_host(head)
        try:
            terms = _terms(head["terms"])
            state = DeclaredFile.of("the plan", head["state"], Path("/"), inherited).state()
        except PlaceMissingError as error:
            raise _changed(error.problem) from None
        return cls(head, steps, terms, state)


def apply_plan(
    controller: Controller,
    plan: WrittenPlan,
    *,
    record: Path = RECORD,
    on_compile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
    reason: str | None = None,
) -> list[Step]:
    """Carry out a plan; returns the steps taken, as ``apply_state`` does.

    Raises:
        HostChangedError: the host is not as the plan saw it. If a link is changed by somebody else
            while this runs, nothing is changed, unless only links to detach are left.
        Otherwise as for ``apply_state``.
    """
    same = refused = False

    def check(now: Plan) -> None:
        nonlocal same, refused
        seen = _plain(_seen(now, plan.state))
        difference = next(_differences(plan.head, seen), None)
        if difference is None:
            again = [_plain(step_object(step)) for step in visible_steps(now)]
            difference = next(_other_steps(plan.steps, again), None)
        if difference is not None:
            raise _changed(difference)
        same = True
        refused = any(match.changes and match.on_trial for match in now.matches)

    try:
        return apply_state(
            controller,
            plan.state,
            terms=plan.terms,
            record=record,
            on_compile=on_compile,
            warn=warn,
            reason=reason,
            check=check,
        )
    except (NameTakenError, OtherOwnerError, PlaceMissingError, ProgramError) as error:
        # while the plan is made again: it was possible when it was made
        if same:
            raise
        raise _changed(error.problem) from error
    except KernelError as error:
        # one that was there when the plan was made is no change of the host
        if refused or not (isinstance(error, _LATE) or error.errno == errno.EBUSY):
            raise
        raise _changed(error.problem) from error


def _plain(value: Mapping[str, Any]) -> Any:
    """An object as it is read again from its text."""
    return json.loads(json.dumps(value))


def _changed(difference: str) -> HostChangedError:
    return HostChangedError(
        f"the host is not as the plan saw it: {difference}", "make a new plan: ipttctl diff -o json"
    )


def _absolute(state: State) -> State:
    """The state with paths that mean the same in any directory."""
    here = Path.cwd()
    links = (
        replace(link, programs=link.programs.relative_to(here.absolute())) for link in state.links
    )
    return State(tuple(links))


def _seen(plan: Plan, state: State) -> dict[str, Any]:
    """The state of the host that matters to a plan, and all that is to be done with it."""
    links = {
        link.id: link
        for link in (
            *(match.link for match in plan.matches),
            *(one.link for one in plan.adopted),
            *(link for _, link in plan.surplus),
        )
        if link is not None
    }
    terms = asdict(plan.terms)
    return {
        "type": _TYPE,
        "format": _FORMAT,
        **identity(HostIdentity.now()),
        "terms": {
            **{name: terms[name] for name in _TERMS},
            _GUARDS: [str(guard) for guard in plan.terms.guards],
        },
        "links": [_link(links[number]) for number in sorted(links)],
        "places": {match.declared.name: list(match.identity) for match in plan.matches},
        "programs": {match.declared.name: _programs(match) for match in plan.matches},
        "state": state_object(state),
    }


def _link(link: Link) -> dict[str, Any]:
    return {
        "link": link.id,
        "name": link.name or None,
        "generation": link.generation,
        "owner_pid": None if link.persistent else link.owner_pid,
        "waits": link.waits,
        "shadow": None if link.shadow is None else link.shadow.number,
        "labels": dict(link.labels),
        "programs": {
            slot.name.lower(): {"id": program.id, "tag": program.tag}
            for slot, program in link.programs.items()
        },
    }


def _programs(match: Match) -> dict[str, str]:
    """Identity of each declared program at the moment: a hash of what its file holds, or an id."""
    sources = match.declared.programs.sources
    with open_sources({s: one for s, one in sources.items() if not is_file(one)}) as fds:
        ids = {s.name.lower(): f"id {syscalls.program_info(fd).id}" for s, fd in fds.items()}
    return ids | {slot.name.lower(): digest for slot, digest in match.digests.items()}


def _objects(text: str) -> list[dict[str, Any]]:
    try:
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise UsageError("this is no plan", "ipttctl diff -o json makes one") from None
    if not found or not all(isinstance(one, dict) for one in found):
        raise UsageError("this is no plan", "ipttctl diff -o json makes one")
    head = found[0]
    if (head.get("type"), head.get("format")) != (_TYPE, _FORMAT):
        raise UsageError(
            f"this is no plan of format {_FORMAT}", "make one with this ipttctl: diff -o json"
        )
    for key, kind in _KEYS.items():
        if not isinstance(head.get(key), kind):
            raise UsageError(f"the plan has no '{key}'", "ipttctl diff -o json makes one")
    if {*_TERMS, _GUARDS} != head["terms"].keys() or not all(
        isinstance(link, dict) and isinstance(link.get("link"), int) for link in head["links"]
    ):
        raise UsageError("this is no plan of this ipttctl", "make one: diff -o json")
    return found


def _terms(given: Mapping[str, Any]) -> Terms:
    """The terms of a plan.

    Raises:
        UsageError: they are not valid.
    """
    guards = given[_GUARDS]
    if (
        not all(isinstance(given[name], kinds) for name, kinds in _TERMS.items())
        or isinstance(given["rollback_after"], bool)
        or not isinstance(guards, list)
        or not all(isinstance(text, str) for text in guards)
    ):
        raise UsageError("the terms of the plan are not valid", "make one: diff -o json")
    parse_owner("the owner in the plan", given["owner"] or None)
    return Terms(
        **{name: given[name] for name in _TERMS},
        guards=tuple(Condition.parse(text) for text in guards),
    )


def _compare_host(head: Mapping[str, Any]) -> None:
    now = identity(HostIdentity.now())
    for key in _HOST:
        if head[key] != now[key]:
            raise _changed(f"{key} is {now[key]}, and was {head[key]}")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what differs between the host that a plan saw and the present one."""
    old = {link["link"]: link for link in before["links"]}
    new = {link["link"]: link for link in now["links"]}
    for number in sorted(old.keys() | new.keys()):
        if number not in new:
            yield f"link {number} is gone, or is not the plan's any more"
        elif number not in old:
            yield f"link {number} ({new[number]['name'] or '-'}) is new"
        for key in new.get(number, ()):
            if number in old and new[number][key] != old[number].get(key):
                told = f"link {number}: {key} is {new[number][key]}, and was {old[number].get(key)}"
                yield told
    for what in ("places", "programs"):
        for name in sorted(before[what].keys() | now[what].keys()):
            if before[what].get(name) != now[what].get(name):
                yield (
                    f"{name}: its {what.removesuffix('s')} is {now[what].get(name)}, and was "
                    f"{before[what].get(name)}"
                )


def _other_steps(before: Sequence[Any], now: Sequence[Any]) -> Iterator[str]:
    """Sentences on steps that would be others now: maps' contents decide over some."""
    for number in range(max(len(before), len(now))):
        old = before[number] if number < len(before) else None
        new = now[number] if number < len(now) else None
        if old != new:
            yield f"step {number + 1} would be {_step(new)}, and was {_step(old)}"


def _step(step: Mapping[str, Any] | None) -> str:
    if step is None:
        return "none"
    words = (step.get("action"), step.get("name"), step.get("map"), step.get("key"))
    return " ".join(str(word) for word in words if word is not None)
