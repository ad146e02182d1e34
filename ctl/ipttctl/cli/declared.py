# SPDX-License-Identifier: GPL-2.0
"""``ipttctl apply``, ``diff`` and ``save``."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from ipttctl import state as declared_state
from ipttctl.cli.apply_watch import apply_watch
from ipttctl.cli.durations import seconds
from ipttctl.cli.exit_codes import DIFFERS
from ipttctl.cli.groups import grouped
from ipttctl.cli.guards import parse_guards, parse_rollback_after
from ipttctl.cli.options import Output, OutputOption, ReasonOption, inherited, tell_compiling
from ipttctl.cli.printing import lines, note
from ipttctl.cli.signals import interrupt, interrupted_by
from ipttctl.cli.walk import verified_for
from ipttctl.errors import UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.names import parse_reason
from ipttctl.options import Option
from ipttctl.show import render_json
from ipttctl.state import Step, Terms
from ipttctl.state.file import read_state, state_object, state_text
from ipttctl.state.host_plan import WrittenPlan, apply_plan, plan_state
from ipttctl.state.option_files import read_text
from ipttctl.state.owners import parse_owner
from ipttctl.state.steps import step_object, step_text
from ipttctl.system.inherited import Inherited

_FILE = Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - is standard input")]
_OWNER = Annotated[
    str | None,
    typer.Option("--owner", metavar="NAME", help="only the links of this owner's file"),
]
_DAY: Final = 86400.0


@dataclass(frozen=True, kw_only=True)
class TermOptions:
    """The options that say on which terms a state is applied (see ``ipttctl.options``)."""

    owner: Annotated[
        str | None,
        Option("--owner", "whose file it is; others' links are left alone", metavar="NAME"),
    ] = None
    take: Annotated[
        bool, Option("--take", "take over links that it declares and another file does too")
    ] = False
    prune: Annotated[
        bool, Option("--prune", "also detach persistent links that no file declares")
    ] = False
    confirm: Annotated[
        bool,
        Option("--confirm", "keep swaps that wait for it; refused if a link is not as declared"),
    ] = False
    rollback_after: Annotated[
        str | None,
        Option(
            "--rollback-after",
            "swap back after this time (500ms, 30s, 2m, 1h) unless confirmed",
            metavar="TIME",
        ),
    ] = None
    guard: Annotated[
        list[str],
        Option(
            "--guard",
            "swap back as soon as this does not hold, such as 'drops < 10/s', unless confirmed",
            metavar="CONDITION",
        ),
    ] = field(default_factory=list)

    def terms(self) -> Terms:
        """The terms.

        Raises:
            UsageError: a value is not valid, or two exclude each other.
        """
        after, guards = self.rollback_after, parse_guards(self.guard)
        if self.confirm and (after is not None or guards):
            raise UsageError("--confirm excludes --rollback-after and --guard")
        return Terms(
            owner=parse_owner("--owner", self.owner),
            take=self.take,
            prune=self.prune,
            confirm=self.confirm,
            rollback_after=parse_rollback_after(after),
            guards=tuple(guards),
        )


@grouped
def apply(
    *,
    context: typer.Context,
    file: _FILE,
    wanted: TermOptions,
    plan: Annotated[
        bool, typer.Option("--plan", help="FILE is what diff -o json printed: do just that")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="keep it so until Ctrl-C or SIGTERM; SIGHUP rereads")
    ] = False,
    every: Annotated[
        str | None,
        typer.Option(
            "--every",
            metavar="TIME",
            help="with --watch: how often maps, files and places are looked at (default: 10s)",
        ),
    ] = None,
    reason: ReasonOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Make links and maps as FILE declares them, and print the changes.

    FILE has an object "links" with an object for each link by its name. This holds attach's options
    by their long names, "maps" with the contents of maps, and "link", the id of a persistent link
    to take over. Links that FILE of the same owner declared before, and does not any more, are
    detached; what the file of another owner declares is never touched (exit status 21). Links that
    a process owns are left alone, a declared one with a warning on standard error. Links have their
    names in the module too.

    If anything fails, nothing is changed: all programs are loaded first, and all links that change
    do so in one step. Applying the same FILE again changes nothing.

    With --rollback-after that step is undone by the module unless it is confirmed in time: by
    --confirm with the same FILE, or by `ipttctl confirm`. With --guard it is undone as soon as the
    condition does not hold for one of the links. Until then links that are to go stay.

    With --plan it is done only if the host is still as the plan saw it (exit status 20).

    With --watch it tells what is not, or no longer, as declared, and mends it. A link whose last
    swap waits, or which has a shadow, is left alone; so is one whose declared programs were tried
    with --rollback-after or --guard and rolled back. It tells systemd its state, and ends with 0 on
    SIGTERM; the links stay.
    """
    why = parse_reason("--reason", reason)
    terms = wanted.terms()
    if plan and watch:
        raise UsageError("--plan excludes --watch", "a plan is carried out once")
    if plan and terms != Terms():
        raise UsageError("--plan takes no other terms", "they are in the plan: give them to diff")
    if every is not None and not watch:
        raise UsageError("--every goes with --watch")
    if watch and (terms.confirm or terms.on_trial):
        raise UsageError("--watch confirms nothing, and makes no swap that is rolled back")
    _take_all_descriptors()
    if watch:
        pause = None if every is None else seconds("--every", every, _DAY)
        apply_watch(file, terms, inherited(context), every=pause, reason=why, form=output_form)
    elif plan:
        _carry_out(file, inherited(context), why, output_form)
    else:
        state = read_state(file, inherited(context))
        with interrupted_by(interrupt), Controller() as controller:
            verified_for(controller, (link.hook for link in state.links))
            steps = declared_state.apply_state(
                controller,
                state,
                terms=terms,
                on_compile=tell_compiling,
                warn=note,
                reason=why,
            )
            _print(steps, output_form)


def _carry_out(file: str, left_open: Inherited, reason: str | None, form: Output) -> None:
    plan = WrittenPlan.parse(read_text(file), left_open)
    with interrupted_by(interrupt), Controller() as controller:
        verified_for(controller, (link.hook for link in plan.state.links))
        steps = apply_plan(controller, plan, on_compile=tell_compiling, warn=note, reason=reason)
        _print(steps, form)


@grouped
def diff(
    *,
    context: typer.Context,
    file: _FILE,
    wanted: TermOptions,
    output_form: OutputOption = Output.TEXT,
) -> int:
    """Print the changes that apply would make, one a line. Exit status 9 if there are any.

    Changes and loads nothing. Maps of programs that apply would load are not compared. Swaps that
    wait to be confirmed, and shadows, are told on standard error.

    With -o json the lines are a plan for apply --plan. The first one has the state of the host, and
    the terms, which apply takes from there.
    """
    terms = wanted.terms()
    state = read_state(file, inherited(context))
    _take_all_descriptors()
    with Controller() as controller:
        if output_form is Output.JSON:
            objects, steps = plan_state(
                controller, state, terms=terms, on_compile=tell_compiling, warn=note
            )
            lines(map(render_json.dumps, objects))
        else:
            steps = declared_state.diff_state(
                controller, state, terms=terms, on_compile=tell_compiling, warn=note
            )
            _print(steps, output_form)
    return DIFFERS if steps else 0


def save(
    maps: Annotated[
        bool, typer.Option("--maps", help="save all maps, not only those that apply filled")
    ] = False,
    pin: Annotated[
        Path | None,
        typer.Option(
            "--pin", metavar="DIRECTORY", help="pin programs known only by id in DIRECTORY"
        ),
    ] = None,
    owner: _OWNER = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Print the persistent links in the form that apply takes: applying it changes nothing.

    Programs are printed as apply was given them. Others are printed by id; an id is valid until the
    last link that holds the program is gone, or until a reboot. With --pin such programs are pinned
    in a BPF file system and printed by path. Links that cannot be restored, and those that belong
    to the file of an owner if none is given, are named on standard error.
    """
    whose = parse_owner("--owner", owner)
    with Controller() as controller:
        saved = declared_state.save_state(controller, maps=maps, pins=pin, owner=whose)
    if output_form is Output.JSON:
        lines([render_json.dumps(state_object(saved.state))])
    else:
        lines(state_text(saved.state).splitlines())
    for link, why in saved.left_out:
        note(f"link {link.id} is left out: {why}")


def _take_all_descriptors() -> None:
    """Raise the limit on descriptors to its maximum: all that changes is open at once."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _print(steps: list[Step], form: Output) -> None:
    lines(
        render_json.dumps(step_object(step)) if form is Output.JSON else step_text(step)
        for step in steps
    )
