# SPDX-License-Identifier: GPL-2.0
"""``ipttctl apply``, ``diff`` and ``save``."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ipttctl import state as declared_state
from ipttctl.cli.exit_codes import DIFFERS
from ipttctl.cli.options import Output, OutputOption, ReasonOption, inherited, tell_compiling
from ipttctl.cli.printing import lines, note
from ipttctl.cli.signals import interrupted_by
from ipttctl.cli.walk import verified_for
from ipttctl.link.controller import Controller
from ipttctl.link.names import parse_reason
from ipttctl.programs.sources import source_text
from ipttctl.show import render_json
from ipttctl.state import DeclaredLink, Step
from ipttctl.state.file import read_state, state_object, state_text

_FILE = Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - is standard input")]
_PRUNE = Annotated[
    bool,
    typer.Option("--prune", help="also detach undeclared persistent links that apply did not make"),
]


def apply(
    context: typer.Context,
    file: _FILE,
    prune: _PRUNE = False,
    reason: ReasonOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Make links and maps as FILE declares them, and print the changes.

    FILE has an object "links" with an object for each link by its name. This holds attach's options
    by their long names, "maps" with the contents of maps, and "link", the id of a persistent link
    to take over. Links that apply made and FILE does not have are detached. Links that a process
    owns are left alone, a declared one with a warning on standard error. Links have their names in
    the module too.

    If anything fails, nothing is changed: all programs are loaded first, and all links that change
    do so in one step. Applying the same FILE again changes nothing.
    """
    why = parse_reason("--reason", reason)
    state = read_state(file, inherited(context))
    _take_all_descriptors()
    with interrupted_by(_interrupt), Controller() as controller:
        verified_for(controller, (link.hook for link in state.links))
        _print(
            declared_state.apply_state(
                controller,
                state,
                prune=prune,
                on_compile=tell_compiling,
                warn=note,
                reason=why,
            ),
            output_form,
        )


def diff(
    context: typer.Context,
    file: _FILE,
    prune: _PRUNE = False,
    output_form: OutputOption = Output.TEXT,
) -> int:
    """Print the changes that apply would make, one a line. Exit status 9 if there are any.

    Changes and loads nothing. Maps of programs that apply would load are not compared.
    """
    state = read_state(file, inherited(context))
    _take_all_descriptors()
    with Controller() as controller:
        steps = declared_state.diff_state(
            controller, state, prune=prune, on_compile=tell_compiling, warn=note
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
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Print the persistent links in the form that apply takes: applying it changes nothing.

    Programs are printed as apply was given them. Others are printed by id; an id is valid until the
    last link that holds the program is gone, or until a reboot. With --pin such programs are pinned
    in a BPF file system and printed by path. Links that cannot be restored are named on standard
    error.
    """
    with Controller() as controller:
        saved = declared_state.save_state(controller, maps=maps, pins=pin)
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


def _interrupt() -> None:
    raise KeyboardInterrupt


def _print(steps: list[Step], form: Output) -> None:
    lines(
        render_json.dumps(_json(step)) if form is Output.JSON else " ".join(_words(step))
        for step in steps
    )


def _json(step: Step) -> dict[str, Any]:
    return {
        "action": step.action,
        "name": step.name,
        "link": step.link,
        "changes": list(step.changes),
        "set": step.declared.programs.constants if step.declared else {},
        "map": step.map,
        "key": step.key,
        "value": step.value,
    }


def _words(step: Step) -> Iterator[str]:
    yield step.action
    if step.map is not None:
        yield f"{step.name}/{step.map}"
        yield _text(step.key)
        if step.value is not None:
            yield _text(step.value)
        return
    yield step.name or "-"
    if step.link is not None:
        yield f"link={step.link}"
    if step.changes:
        yield f"changes={','.join(step.changes)}"
    if step.declared:
        yield from _declared(step.declared)


def _declared(link: DeclaredLink) -> Iterator[str]:
    for slot, source in link.programs.sources.items():
        yield f"{slot.name.lower()}={':'.join(source_text(source))}"
    for name, value in link.programs.constants.items():
        yield f"set.{name}={value if isinstance(value, str) else json.dumps(value)}"
    if link.programs.filter:
        yield f"filter='{link.programs.filter}'"
    if link.maps:
        yield f"maps={','.join(link.maps)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
