# SPDX-License-Identifier: GPL-2.0
"""``ipttctl apply --watch``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ipttctl.cli.options import Output, tell_compiling
from ipttctl.cli.printing import lines, note
from ipttctl.cli.signals import on_ending
from ipttctl.cli.standard_files import OutputError, ReaderGoneError
from ipttctl.cli.stream_head import begin_stream
from ipttctl.cli.walk import verified_for
from ipttctl.link.controller import Controller
from ipttctl.show import render_json
from ipttctl.state import State, Step, Terms
from ipttctl.state.steps import step_object, step_text
from ipttctl.state.watch import EVERY, Callbacks, StateWatch
from ipttctl.system.inherited import Inherited


def apply_watch(
    file: str,
    terms: Terms,
    inherited: Inherited,
    *,
    every: float | None,
    reason: str | None,
    form: Output,
) -> None:
    """Keep the host as a file declares it until a signal ends the command.

    Raises:
        OutputError: the steps cannot be printed any more, not even for lack of a reader: nobody
            would notice a keeper that has fallen silent, but a supervisor starts it again.
    """

    def done(steps: Sequence[Step]) -> None:
        now = time.time_ns()
        lines(
            render_json.dumps({**step_object(step), "time_ns": now})
            if form is Output.JSON
            else step_text(step)
            for step in steps
        )

    def prepare(controller: Controller, state: State) -> None:
        verified_for(controller, (link.hook for link in state.links), watch.alive)

    watch = StateWatch(
        file,
        terms,
        Callbacks(
            tell=note,
            done=done,
            connected=lambda controller: begin_stream("apply", controller, form),
            prepare=prepare,
            on_compile=tell_compiling,
        ),
        inherited=inherited,
        every=EVERY if every is None else every,
        reason=reason,
    )
    with on_ending(watch.stop, watch.reread):
        try:
            watch.run()
        except ReaderGoneError:
            raise OutputError(
                "nobody reads standard output any more", "the links stay, and are not kept so"
            ) from None
