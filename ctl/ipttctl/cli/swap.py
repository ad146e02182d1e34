# SPDX-License-Identifier: GPL-2.0
"""``ipttctl swap`` and ``history``."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import typer

from ipttctl.bpf.constants_map import constants_of
from ipttctl.cli import output
from ipttctl.cli.groups import grouped
from ipttctl.cli.guards import (
    GuardOption,
    PromoteIfOption,
    RollbackAfterOption,
    parse_guards,
    parse_promote_if,
    parse_rollback_after,
)
from ipttctl.cli.keep import KeepingCommand, KeepOptions
from ipttctl.cli.options import (
    ForceOption,
    LinkArgument,
    Output,
    OutputOption,
    ReasonOption,
    inherited,
)
from ipttctl.errors import PrivilegeError, ProgramError, UsageError
from ipttctl.link.condition import Condition
from ipttctl.link.controller import Controller
from ipttctl.link.names import LabelOptions, parse_link, parse_reason
from ipttctl.programs.options import ProgramOptions
from ipttctl.programs.slots import Expectations
from ipttctl.system.inherited import Inherited

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("swap", cls=KeepingCommand)
@grouped
def swap(
    *,
    context: typer.Context,
    programs: ProgramOptions,
    keep: KeepOptions,
    link: Annotated[
        str | None, typer.Argument(metavar="[LINK]", help="id or name of the link")
    ] = None,
    expected: Expectations,
    rollback_after: RollbackAfterOption = None,
    guard: GuardOption = None,
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow",
            help="run beside the link's programs: compare the verdicts, and do not use them",
        ),
    ] = False,
    promote_if: PromoteIfOption = None,
    transaction: Annotated[
        str | None,
        typer.Option(
            "--txn",
            metavar="FILE",
            help="several links in one step, all or none: a YAML or JSON list; - is standard input",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="return once no packet meets the old programs any more")
    ] = False,
    expedite: Annotated[
        bool,
        typer.Option(
            "--expedite",
            help="as --wait, but sooner: it interrupts every CPU (not with PREEMPT_RT)",
        ),
    ] = False,
    label: LabelOptions,
    reason: ReasonOption = None,
    force: ForceOption = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Replace all programs of a link in one step, and what goes with them.

    Replaces the whole set: unnamed slots become empty, as do filter, cookie, payload and limits if
    they are neither given nor kept. The link keeps its labels unless --label is given, which
    replaces all of them. Prints the new state of the link.

    It returns when packets that come meet the new programs. Some packets may still be handled by
    the old ones; with --wait it returns when there are none any more, so that what these have
    counted is final. `ipttctl events --links` shows that moment as "ended". A swap that can be
    rolled back always waits for it.

    --keep-maps loads the programs of --source and --object with the maps of the same names that the
    link's programs use, so that nothing in them is lost: --keep-maps, or --keep-maps=limits,counts.
    Type, sizes and types (BTF) have to be the same. The maps of a loaded program are fixed. --keep
    takes filter, cookie, payload and limits, with commas. If somebody else swaps the link
    meanwhile, the swap is refused (status 7).

    With --txn FILE holds the links and their programs, as a list with an object for each link:
    "link" and this command's options by their long names, as in
    [{"link": 3, "fd": {"rule": 7}, "expect-gen": 1}, {"link": 4, "pinned": {"packet": "/x/y"}}].
    If anything is refused, none of them is swapped.

    --guard is a condition on the counters of each link, counted from the swap on, such as
    'drops < 10/s for 5s', 'drops < 1/100 min 500 packets' or 'lost < 1'. As soon as a guard does
    not hold, all links of the swap go back. Without --rollback-after they wait for `confirm`
    without a limit.

    The kernel module itself keeps --rollback-after and --guard, so that they hold even if ipttctl
    is killed. Until then the links cannot be swapped again (status 12); `ipttctl rollback` undoes
    the swap at once.

    With --shadow the link, at a netfilter hook in filter mode, keeps its programs: the new one
    meets the same packets, and where its verdict is another one, that is counted and an event.
    `ipttctl promote` swaps it in, `ipttctl drop-shadow` takes it away; until then the link cannot
    be swapped. A shadow needs maps of its own: --keep-maps copies those of the link. With
    --promote-if, a condition on the shadow's agreements or disagreements, the module itself
    promotes it; packets count that were compared, and without any it is not promoted.
    """
    back = parse_rollback_after(rollback_after)
    guards = parse_guards(guard)
    why = parse_reason("--reason", reason)
    conditions = parse_promote_if(promote_if)
    if shadow:
        _check_shadow(rollback_after, guard, reason, transaction)
        if wait or expedite:
            option = "--wait" if wait else "--expedite"
            raise UsageError(f"{option} does not go with --shadow, which swaps nothing")
    elif conditions:
        raise UsageError("--promote-if is for a shadow", "give --shadow too")
    if transaction is not None:
        if link is not None or programs.given or keep.given or expected.given or label.given:
            raise UsageError("--txn has links, programs, labels and expectations in its file")
        how = _How(back, guards, why, force, wait, expedite)
        _transact(transaction, inherited(context), how, output_form)
        return
    if link is None:
        raise UsageError("give the id or the name of a link, or --txn")
    wanted = parse_link(link)
    labels = label.labels()
    expected_programs = expected.programs()
    choice = programs.choice(inherited(context))
    kept = keep.kept()
    with (
        Controller() as controller,
        kept.open(
            controller,
            wanted,
            choice,
            expected.expect_generation,
            expected_programs,
            copied=shadow,
        ) as opened,
    ):
        options: dict[str, Any] = {
            "expect_generation": opened.expect_generation,
            "expect_programs": expected_programs,
            "labels": labels,
            "force": force,
            "keep": opened.keep,
        }
        if shadow:
            changed = controller.shadow(
                opened.link, opened.programs, promote_if=conditions, **options
            )
        else:
            changed = controller.swap(
                opened.link,
                opened.programs,
                rollback_after=back,
                guards=guards,
                reason=why,
                wait=wait,
                expedite=expedite,
                **options,
            )
        output.links([changed], output_form)


def history(link: LinkArgument, output_form: OutputOption = Output.TEXT) -> None:
    """Show the last generations of a link, oldest first: the change, its time and its author.

    Links that were swapped together have the same number of a transaction. A roll-back has that of
    the swap that it undoes. Programs that are still loaded are shown with their constants, if the
    caller may open programs and maps (CAP_SYS_ADMIN).
    """
    wanted = parse_link(link)
    with Controller() as controller:
        entries = controller.history(wanted)
    constants = {}
    for program in {info.id for entry in entries for info in entry.programs.values()}:
        with suppress(ProgramError, PrivilegeError):
            constants[program] = constants_of(program)
    output.history(entries, output_form, constants)


def _check_shadow(
    rollback_after: str | None,
    guard: list[str] | None,
    reason: str | None,
    transaction: str | None,
) -> None:
    """Check that no option is given that has no meaning for a shadow.

    Raises:
        UsageError: one is.
    """
    if transaction is not None:
        raise UsageError("--shadow is for one link", "give it its id or name, and no --txn")
    given = {"--rollback-after": rollback_after, "--guard": guard, "--reason": reason}
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                f"{option} does not go with --shadow, which swaps nothing",
                "give it to `ipttctl promote`",
            )


class _How(NamedTuple):
    """The way in which a transaction is made; see ``Controller.transact``."""

    rollback_after: float | None
    guards: list[Condition]
    reason: str | None
    force: bool
    wait: bool
    expedite: bool


def _transact(file: str, left_open: Inherited, how: _How, form: Output) -> None:
    from ipttctl.cli.transaction import read_transaction  # noqa: PLC0415  # yaml: 10 ms

    changes = read_transaction(file, left_open)
    with Controller() as controller, ExitStack() as stack:
        swaps = [
            replace(
                stack.enter_context(
                    change.kept.open(
                        controller,
                        change.link,
                        change.choice,
                        change.expect_generation,
                        change.expect_programs,
                    )
                ),
                labels=change.labels,
            )
            for change in changes
        ]
        output.links(controller.transact(swaps, **how._asdict()), form)
