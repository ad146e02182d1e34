# SPDX-License-Identifier: GPL-2.0
"""``ipttctl run``: a link for as long as a command runs."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Final

import typer

from ipttctl.cli import output
from ipttctl.cli.groups import grouped
from ipttctl.cli.hook_options import HookOptions
from ipttctl.cli.options import Output, OutputOption, ProgramOptions, tell_compiling
from ipttctl.controller import Controller
from ipttctl.errors import LinkGoneError, os_reason

NOT_EXECUTABLE: Final = 126
"""Exit status when the command cannot be executed, as shells have it."""
NOT_FOUND: Final = 127
"""Exit status when there is no such command, as shells have it."""

#: what is passed on to the command
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
#: seconds after which a child is looked for that has ended unheard
_PATIENCE: Final = 1.0
#: what Python ignores and a command should not: exec() keeps what is ignored
_TO_DEFAULT: Final = (signal.SIGPIPE, signal.SIGXFSZ)


@grouped
def run(
    *,
    programs: ProgramOptions,
    where: HookOptions,
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND...", help="what to run; options end where it begins"),
    ],
    output_form: OutputOption = Output.TEXT,
) -> int:
    """Attach as attach does, run COMMAND, detach: run --fd packet=7 --hook HOOK -- COMMAND...

    COMMAND finds the link's id in IPTTCTL_LINK. What ipttctl says goes to standard error, as
    standard output is COMMAND's: the link before and after it. Signals are passed on to COMMAND.
    Ends as COMMAND does, with 128 + N if signal N killed it, 126 if it cannot be executed and 127
    if there is none. If ipttctl itself is killed the link goes, and COMMAND stays.
    """
    place = where.place()
    choice = programs.choice()
    with Controller() as controller:
        with choice.open(tell_compiling) as opened:
            link = place.attach(controller, opened, persistent=False)
        output.links([link], output_form, to=sys.stderr)
        output.tell_state(link)
        status = _run(command, {**os.environ, "IPTTCTL_LINK": str(link.id)})
        try:
            output.links([controller.detach(link.id)], output_form, to=sys.stderr)
        except LinkGoneError:
            output.note(f"link {link.id} was detached by somebody else")
        return status


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end; its exit status as a shell tells it."""
    # Signals wait from here on until they can be passed on, so that none kills us before that.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    try:
        pid = os.posix_spawnp(
            command[0], command, environment, setsigmask=before, setsigdef=_TO_DEFAULT
        )
    except FileNotFoundError:
        output.note(f"ipttctl: there is no command '{command[0]}'")
        return NOT_FOUND
    except OSError as error:
        output.note(f"ipttctl: cannot execute '{command[0]}': {os_reason(error)}")
        return NOT_EXECUTABLE
    else:
        return _await(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _await(pid: int) -> int:
    """Pass signals on to a child until it ends; its exit status as a shell tells it."""
    while True:
        # a library's thread that does not block SIGCHLD may have taken it: then the time is up
        told = signal.sigtimedwait(_AWAITED, _PATIENCE)
        if told is None or told.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif told.si_code <= 0 and told.si_pid != pid:
            # what a terminal sends (SI_KERNEL) the child, of our process group, has got itself
            os.kill(pid, told.si_signo)
