# SPDX-License-Identifier: GPL-2.0
"""``ipttctl cflags``."""

from __future__ import annotations

import shlex

from ipttctl.cli.options import Output, OutputOption
from ipttctl.cli.printing import lines
from ipttctl.programs.cflags import cflags as clang_options
from ipttctl.show import render_json


def cflags(output_form: OutputOption = Output.TEXT) -> None:
    """Print the options with which clang compiles a BPF program for this host.

    They name the target and its architecture, and the directories of ipttrace.h, of the protocol's
    header and of the C library's: clang $(ipttctl cflags) -c count.c -o count.o
    """
    options = clang_options()
    if output_form is Output.JSON:
        lines([render_json.dumps({"cflags": options})])
    else:
        lines([shlex.join(options)])
