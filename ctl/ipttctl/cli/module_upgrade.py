# SPDX-License-Identifier: GPL-2.0
"""``ipttctl module upgrade``, apart: the other commands for the module need none of it."""

from __future__ import annotations

from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines, note
from ipttctl.errors import ModuleError
from ipttctl.show import render_json
from ipttctl.upgrade import run
from ipttctl.upgrade.shown import as_lines, as_object
from ipttctl.upgrade.steps import UpgradeOutcome


def begin(form: Output, *, force: bool) -> None:
    """Upgrade, or go on with an upgrade that was killed, and print the outcome.

    Raises ModuleError if the way led back.
    """
    outcome = run.upgrade(note, force=force, report=lambda outcome: _print(form, outcome))
    _end(form, outcome, "the module is loaded already")


def go_on(form: Output) -> None:
    """Go on with an upgrade that was killed, and print the outcome.

    Raises ModuleError if the way led back.
    """
    outcome = run.resume(note, report=lambda outcome: _print(form, outcome))
    _end(form, outcome, "there is nothing to go on with")


def _print(form: Output, outcome: UpgradeOutcome) -> None:
    if form is Output.JSON:
        lines([render_json.dumps(as_object(outcome))])
    else:
        lines(as_lines(outcome))


def _end(form: Output, outcome: UpgradeOutcome | None, nothing: str) -> None:
    if outcome is None:
        lines([render_json.dumps(as_object(None)) if form is Output.JSON else nothing])
    elif outcome.back:
        raise ModuleError(
            f"the module was not replaced: {outcome.back}",
            f"version {outcome.old.version} is back with its links",
        )
