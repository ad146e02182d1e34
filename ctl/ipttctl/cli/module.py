# SPDX-License-Identifier: GPL-2.0
"""``ipttctl module``: build, load, unload, status; and bare ``ipttctl``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ipttctl.cli import output
from ipttctl.cli.options import GroupOutputOption, Output, OutputOption, group_output
from ipttctl.cli.output import walk_progress
from ipttctl.cli.printing import lines, note
from ipttctl.errors import UsageError
from ipttctl.host import module, walk
from ipttctl.link.controller import Controller
from ipttctl.numbers import counted
from ipttctl.show import render_json, render_text

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def default(context: typer.Context, output_form: GroupOutputOption = None) -> None:
    """Build, load and unload the kernel module. Without a command: show its status."""
    form = group_output(context, output_form)
    if context.invoked_subcommand is None:
        overview(form)


@app.command()
def build(
    kernel: Annotated[
        str | None,
        typer.Option(
            "--kernel", metavar="RELEASE", help="for this kernel instead of the running one"
        ),
    ] = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Build the module against the headers of a kernel, and print its file.

    The source is the one that came with ipttctl, or the directory in IPTTRACE_SOURCE.
    """
    release = kernel or module.running_release()
    note(f"building the module for {release} (takes some seconds)...")
    _file("built", str(module.build(release)), output_form)


@app.command()
def load(output_form: OutputOption = Output.TEXT) -> None:
    """Load the module for the running kernel, and print its file.

    The file is the first of these: the one that IPTTRACE_KO names, the one built by `ipttctl module
    build`, the installed one (by DKMS).
    """
    _file("loaded", str(module.load()), output_form)


@app.command()
def unload(
    force: Annotated[bool, typer.Option("--force", help="detach its links first")] = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Unload the module; refused while it has links. Prints the links that --force detached."""
    output.links(module.unload(force=force), output_form)


@app.command()
def keep(output_form: OutputOption = Output.TEXT) -> None:
    """Keep a copy of the file of the module that is loaded, and print the copy.

    An upgrade that fails goes back to it. `ipttctl module load` does this too.
    """
    _file("kept", str(module.keep()), output_form)


@app.command()
def upgrade(
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="end the links that cannot be kept, and replace the module although there is no "
            "file of it to go back to",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="only go on with an upgrade that was killed")
    ] = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Replace the module by the one that would be loaded now, and keep its persistent links.

    They keep their ids, names, programs, maps, labels, generations, histories and counters. For a
    moment they are at no hook; how long is printed. If the new module does not load, or does not
    take a link, the old one is loaded again with all of them, and the exit status is 3.

    Refused while processes own links, or if a link cannot be kept; if there is no file of the
    module that is loaded (see `ipttctl module keep`); and, even with --force, while a swap waits to
    be confirmed or a link has a shadow.

    If it is killed, the same command goes on. Ctrl-C and SIGTERM end it before the links are taken
    from their hooks, and nothing has changed then; after that they are ignored.
    """
    if resume and force:
        raise UsageError("--resume excludes --force", "what cannot be kept was decided before")
    from ipttctl.cli import module_upgrade  # noqa: PLC0415  # declared states and more: 60 ms

    if resume:
        module_upgrade.go_on(output_form)
    else:
        module_upgrade.begin(output_form, force=force)


@app.command()
def verify(
    count: Annotated[
        int, typer.Option("--cases", metavar="N", min=1, help="cases to run")
    ] = walk.CASES,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="other cases")] = walk.SEED,
    anyway: Annotated[
        bool,
        typer.Option(
            "--although-not-compared",
            help="trust the result on a series of kernels whose sources nobody compared, or where "
            "the kernel does not tell how its structures are laid out",
        ),
    ] = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Verify that the module walks through nftables' chains as this kernel does.

    Until that is known, links at chains are refused. Random rulesets and packets, in network
    namespaces of their own, with links and without: verdicts, counters, sets and trace messages
    have to be the same, also while the ruleset changes. The result is kept for these builds of
    kernel and module. Exit status 1 if a case differs, whose ruleset is printed.
    """
    if anyway:
        note(
            "where nobody compared the sources of this series of kernels, or the layouts of its "
            "structures, with the module's walk, a difference that these cases do not show may "
            "change what happens to packets, or crash the kernel"
        )
    with Controller() as controller, walk_progress() as progress:
        report = walk.verify(
            controller, count=count, seed=seed, although_not_compared=anyway, progress=progress
        )
    if output_form is Output.JSON:
        shown = {"cases": count, "seed": seed, "differs": report or None}
        lines([render_json.dumps(shown)])
    elif report:
        lines(["the module's walk differs from the kernel's:", *report.splitlines()])
    else:
        lines([f"verified: {count} cases, none differs"])
    if report:
        raise typer.Exit(1)


@app.command()
def status(output_form: OutputOption = Output.TEXT) -> None:
    """Show whether the module is loaded, whether it fits, and what uses it."""
    overview(output_form)


def overview(output_form: Output) -> None:
    """Show the module and its links, for ``ipttctl`` without a command."""
    _state(module.state(), output_form)


def _file(what: str, path: str, form: Output) -> None:
    lines([render_json.dumps({what: path}) if form is Output.JSON else f"{what} {path}"])


def _state(state: module.ModuleState, form: Output) -> None:
    if form is Output.JSON:
        lines([render_json.dumps(_state_object(state))])
        return
    if not state.loaded:
        lines(["module: not loaded; run `ipttctl module load`"])
        return
    number = state.references
    texts = [f"module: loaded, {counted(number, 'reference')}"]
    if state.status:
        texts[0] += f", version {state.status.version}, {state.status.protocol_text}"
        if walked := render_text.walk(state.status):
            texts[0] += f", {walked}"
    if state.problem:
        texts.append(f"problem: {state.problem}")
    if state.status and state.status.walk_refusal:
        texts.append(f"chains: {state.status.walk_refusal}")
    if state.links is not None:
        texts.append(f"links: {len(state.links) or 'none'}")
        texts += [f"  {render_text.link_line(link)}" for link in state.links]
    lines(texts)


def _state_object(state: module.ModuleState) -> dict[str, Any]:
    return {
        "loaded": state.loaded,
        "references": state.references,
        "module": render_json.status_object(state.status) if state.status else None,
        "problem": str(state.problem) if state.problem else None,
        "links": (None if state.links is None else list(map(render_json.link_object, state.links))),
    }
