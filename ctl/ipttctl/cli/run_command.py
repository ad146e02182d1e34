# SPDX-License-Identifier: GPL-2.0
"""``ipttctl run``: a link that lasts as long as a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Final

import typer

from ipttctl.bpf import tools
from ipttctl.cli import output
from ipttctl.cli.exit_codes import NOT_EXECUTABLE, NOT_FOUND
from ipttctl.cli.groups import grouped
from ipttctl.cli.options import Output, OutputOption, inherited, tell_compiling
from ipttctl.cli.printing import note
from ipttctl.cli.walk import verified_for
from ipttctl.errors import LinkGoneError, os_reason
from ipttctl.hooks import HookOptions, check_slots, chosen
from ipttctl.link.controller import Controller
from ipttctl.programs.options import ProgramOptions
from ipttctl.programs.sources import OfDescriptor, ProgramSource

#: the signals that are passed on to the command
_PASSED_ON: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_AWAITED: Final = (signal.SIGCHLD, *_PASSED_ON)
#: seconds between checks for a child whose end went unnoticed
_PATIENCE: Final = 1.0
_STANDARD_ERROR: Final = 2


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    # options after COMMAND are its own
    context_settings={"allow_interspersed_args": False},
    epilog="Exit status: COMMAND's; or that of ipttctl, see `ipttctl --help`.",
)
@grouped
def run(
    *,
    context: typer.Context,
    programs: ProgramOptions,
    where: HookOptions,
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND...", help="command to run; options end where it begins"),
    ],
    output_form: OutputOption = Output.TEXT,
) -> int:
    """Attach a link while COMMAND runs: run --fd packet=7 --hook HOOK -- COMMAND...

    The link is made as by attach, and its id is in COMMAND's environment as IPTTCTL_LINK. Standard
    output is COMMAND's; ipttctl prints the link, before and after, to standard error. Signals are
    passed on to COMMAND. The exit status is COMMAND's: 128 + N if signal N killed it, 126 if it
    cannot be executed, 127 if there is no such command. If ipttctl itself is killed, the link is
    gone and COMMAND goes on.
    """
    left_open = inherited(context)
    hook = chosen(where, left_open)
    choice = programs.choice(left_open)
    check_slots(hook, choice.sources)
    with Controller() as controller:
        verified_for(controller, [hook])
        with choice.open(tell_compiling) as opened:
            link = controller.attach(hook, opened)
            _keep_to_ourselves(choice.sources.values())
        hook.release()
        output.links([link], output_form, to=sys.stderr)
        output.tell_state(link)
        status = _run(command, {**os.environ, "IPTTCTL_LINK": str(link.id)})
        try:
            left = controller.link(link.id)
            if left.owner_portid == link.owner_portid:
                left = controller.detach(link.id)
            else:
                note(f"link {link.id} is not ours any more, and stays")
            output.links([left], output_form, to=sys.stderr)
        except LinkGoneError:
            note(f"link {link.id} was detached by somebody else")
        return status


def _keep_to_ourselves(sources: Iterable[ProgramSource]) -> None:
    """Keep children from inheriting the descriptors that --fd names: they are for us."""
    for source in sources:
        # the standard files stay: a child without them would take other files for them
        if isinstance(source, OfDescriptor) and source.fd > _STANDARD_ERROR:
            # it may have been closed meanwhile
            with suppress(OSError):
                os.set_inheritable(source.fd, False)


def _run(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end; returns its exit status as a shell gives it."""
    unheeded = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    # From here on signals are blocked until they can be passed on, so that none kills us before.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)

    def restore() -> None:
        """Restore for the command the signal mask with which we were started."""
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if unheeded:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    try:
        with tools.exit_statuses():
            child = subprocess.Popen(
                command,
                env=environment,
                close_fds=False,
                preexec_fn=restore,  # noqa: PLW1509 - no other thread of Python runs here
            )
            return _await(child)
    except FileNotFoundError:
        note(f"ipttctl: there is no command '{command[0]}'")
        return NOT_FOUND
    except OSError as error:
        note(f"ipttctl: cannot execute '{command[0]}': {os_reason(error)}")
        return NOT_EXECUTABLE
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _await(child: subprocess.Popen[bytes]) -> int:
    """Pass signals on to a child until it ends; returns its exit status as a shell gives it."""
    while True:
        # a thread of a library that does not block SIGCHLD may have taken it: hence the timeout
        told = signal.sigtimedwait(_AWAITED, _PATIENCE)
        if told is None or told.si_signo == signal.SIGCHLD:
            code = child.poll()
            if code is not None:
                return code if code >= 0 else 128 - code
        elif told.si_code <= 0 and told.si_pid != child.pid:
            # the terminal's signals (SI_KERNEL) reach the whole process group, the child included
            child.send_signal(told.si_signo)
