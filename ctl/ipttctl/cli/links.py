# SPDX-License-Identifier: GPL-2.0
"""``ipttctl attach``, ``swap``, ``detach`` and ``links``."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from ipttctl.cli import options, output
from ipttctl.cli.options import (
    CookieOption,
    Family,
    FdOption,
    FilterOption,
    HookName,
    IdOption,
    Output,
    OutputOption,
    PinnedOption,
    ProgramChoice,
)
from ipttctl.cli.signals import on_ending
from ipttctl.controller import Controller
from ipttctl.errors import LinkGoneError, UsageError
from ipttctl.objects import Change
from ipttctl.streams import LinkChangeStream

_EXPECT_GENERATION = Annotated[
    int | None,
    typer.Option("--expect-gen", metavar="N", min=1, help="only if the link has this generation"),
]


def attach(
    *,
    fd: FdOption = [],  # noqa: B006 - typer copies it
    pinned: PinnedOption = [],  # noqa: B006 - typer copies it
    program_id: IdOption = [],  # noqa: B006 - typer copies it
    filter_expression: FilterOption = None,
    cookie: CookieOption = None,
    hook: Annotated[HookName, typer.Option(help="where to attach")] = HookName.TABLE,
    family: Annotated[Family | None, typer.Option(help="this IP version only")] = None,
    persist: Annotated[
        bool, typer.Option("--persist", help="leave the link behind and return")
    ] = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Make a link out of programs: --fd rule=7 --pinned exit=/sys/fs/bpf/x --id entry=12.

    Prints the link. Without --persist it then stays until Ctrl-C, and the link with it.
    """
    choice = ProgramChoice.parse(fd, pinned, program_id, filter_expression, cookie)
    with (
        Controller() as controller,
        choice.open() as programs,
        controller.link_changes() as changes,
        on_ending(changes.stop),
    ):
        link = controller.attach(
            programs,
            hook=options.hook(hook),
            family=options.family(family),
            persistent=persist,
        )
        output.links([link], output_form)
        output.tell_waiting(link)
        if not persist:
            _hold(link.id, changes)


def swap(
    *,
    link: Annotated[int, typer.Argument(metavar="LINK", min=1, help="id of the link")],
    fd: FdOption = [],  # noqa: B006 - typer copies it
    pinned: PinnedOption = [],  # noqa: B006 - typer copies it
    program_id: IdOption = [],  # noqa: B006 - typer copies it
    filter_expression: FilterOption = None,
    cookie: CookieOption = None,
    expect_generation: _EXPECT_GENERATION = None,
    expect_program: Annotated[
        list[str],
        typer.Option(
            "--expect-prog", metavar="SLOT=ID", help="only if the slot holds it; 0: is empty"
        ),
    ] = [],  # noqa: B006 - typer copies it
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Replace all programs, the filter and the cookie of a link in one step.

    What is not given is empty afterwards. Prints the link as it is then.
    """
    expected = options.expected_programs(expect_program)
    choice = ProgramChoice.parse(fd, pinned, program_id, filter_expression, cookie)
    with Controller() as controller, choice.open() as programs:
        changed = controller.swap(
            link,
            programs,
            expect_generation=expect_generation,
            expect_programs=expected,
        )
        output.links([changed], output_form)


def detach(
    links: Annotated[
        list[int] | None, typer.Argument(metavar="LINK...", min=1, help="ids of links")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="every link there is")] = False,
    expect_generation: _EXPECT_GENERATION = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Remove links, whoever owns them. Prints each as it was at the end."""
    if bool(links) == everything:
        raise UsageError("give ids of links, or --all")
    with Controller() as controller:
        for link_id in links or ():
            gone = controller.detach(link_id, expect_generation=expect_generation)
            output.links([gone], output_form)
        if everything:
            for link in controller.links():
                with suppress(LinkGoneError):
                    gone = controller.detach(link.id, expect_generation=expect_generation)
                    output.links([gone], output_form)


def links(
    link: Annotated[int | None, typer.Argument(metavar="LINK", min=1, help="only this one")] = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Show links, one a line."""
    with Controller() as controller:
        found = controller.links() if link is None else [controller.link(link)]
        output.links(found, output_form)


def _hold(link: int, changes: LinkChangeStream) -> None:
    for change in changes:
        if change.link.id == link and change.change is Change.DETACHED:
            output.note(f"link {link} was detached by somebody else")
            return
