# SPDX-License-Identifier: GPL-2.0
"""``ipttctl doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from ipttctl.cli.exit_codes import FAILED
from ipttctl.cli.options import Output, OutputOption
from ipttctl.cli.printing import lines
from ipttctl.host import doctor as examination
from ipttctl.host.doctor import Finding, Health
from ipttctl.show import render_json

_STATE_WIDTH: Final = max(len(state) for state in Health)
_CHECK_WIDTH: Final = 14


def doctor(output_form: OutputOption = Output.TEXT) -> int:
    """Check that this host has all that ipttctl needs, and name the remedy if it does not.

    One line for each check: ok, warning (something will not work, or is unknown) or failure
    (trace will not work). Changes nothing and loads nothing. Exit status 8 if a check fails.
    """
    failed = False
    for finding in examination.examine():
        failed = failed or finding.state is Health.FAILURE
        lines([_line(finding, output_form)])
    return FAILED if failed else 0


def _line(finding: Finding, form: Output) -> str:
    if form is Output.JSON:
        return render_json.dumps({**asdict(finding), "remedy": finding.remedy or None})
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    heading = f"{finding.state:<{_STATE_WIDTH}} {finding.check:<{_CHECK_WIDTH}}"
    return f"{heading} {finding.text}{remedy}"
