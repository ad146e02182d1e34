# SPDX-License-Identifier: GPL-2.0
"""``ipttctl stats``."""

from __future__ import annotations

from ipttctl.cli.options import Output, OutputOption
from ipttctl.cli.printing import lines
from ipttctl.link.controller import Controller
from ipttctl.show import render_json, render_text


def stats(output_form: OutputOption = Output.TEXT) -> None:
    """Show the module, its event streams and their losses since it was loaded."""
    with Controller() as controller:
        status = controller.status()
    if output_form is Output.JSON:
        lines([render_json.dumps(render_json.status_object(status))])
    else:
        heading = f"module {status.version} {status.protocol_text}"
        heading = f"{heading} {render_text.walk(status)}".rstrip()
        lines([heading, *render_text.cpu_table(status.cpus)])
