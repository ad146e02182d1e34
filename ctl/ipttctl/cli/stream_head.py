# SPDX-License-Identifier: GPL-2.0
"""The beginning of commands that print a stream of JSON."""

from __future__ import annotations

from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines
from ipttctl.link.controller import Controller
from ipttctl.show import render_json
from ipttctl.show.stream_head import stream_head
from ipttctl.system.host_identity import HostIdentity


def begin_stream(stream: str, controller: Controller, form: Output) -> None:
    """Print the first record of a stream, if that is JSON."""
    if form is not Output.JSON:
        return
    # its answer shows that the connection is to the module of this life
    host = HostIdentity.now()
    lines([render_json.dumps(stream_head(stream, host, controller.status()))])
