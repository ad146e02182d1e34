# SPDX-License-Identifier: GPL-2.0
"""Command line: run commands in guests, open a shell in one, list the kernels there are.

Exit status: the command's own; 124 when a guest failed (crash, timeout, set-up), since then the
command proved nothing; 2 for wrong usage or a kernel that is not installed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.guest import accelerator, kernels
from tests.guest.accelerator import Accelerator
from tests.guest.debug.recipe import recipe
from tests.guest.errors import GuestError, KernelMissingError
from tests.guest.job import Job, Workspace
from tests.guest.machine import Machine
from tests.guest.matrix import run_on_all
from tests.guest.runner import run, shell

_EXIT_USAGE = 2
_EXIT_GUEST_FAILED = 124


def _parser() -> argparse.ArgumentParser:
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--cpus", type=int, default=None, help="processors (2; 1 with --icount)")
    machine.add_argument("--memory", default="2G", help="memory, as QEMU takes it (%(default)s)")
    machine.add_argument("--append", action="append", default=[], help="one more kernel argument")
    machine.add_argument("--accel", choices=[a.value for a in Accelerator], help="do not probe")
    machine.add_argument("--module", action="store_true", help="load the project's module first")

    parser = argparse.ArgumentParser(prog="python -m tests.guest", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    runner = verbs.add_parser("run", parents=[machine], help="run a command in a guest")
    runner.add_argument(
        "--kernel",
        action="append",
        help="a series such as 6.12; given more than once, guests run side by side (newest)",
    )
    runner.add_argument("--timeout", type=float, default=600, help="seconds (%(default)s)")
    runner.add_argument("--icount", action="store_true", help="a clock that counts instructions")
    runner.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    runner.add_argument("command", nargs="+", metavar="COMMAND")

    sheller = verbs.add_parser("shell", parents=[machine], help="an interactive guest")
    sheller.add_argument("--kernel", help="a series such as 6.12 (newest)")

    verbs.add_parser("releases", help="list the guest kernels: series and release")
    return parser


def _workspace() -> Workspace:
    """The project this file belongs to; the venv is the one that runs it, if one does."""
    repository = Path(__file__).resolve().parents[2]
    build_dir = repository / ".build"
    venv = Path(sys.prefix) if sys.prefix != sys.base_prefix else build_dir / "venv"
    return Workspace(repository, build_dir, venv)


def _machine(arguments: argparse.Namespace, series: str, workspace: Workspace) -> Machine:
    debug = recipe(series)
    kernel = debug.kernel() if debug else kernels.newest(series)
    if arguments.accel is not None:
        chosen = Accelerator(arguments.accel)
    else:
        chosen = accelerator.choose(kernel, workspace.build_dir)
    icount = getattr(arguments, "icount", False)
    return Machine(
        kernel,
        chosen,
        cpus=arguments.cpus or (1 if icount else 2),
        memory=arguments.memory,
        icount=icount,
        append=tuple(arguments.append),
    )


def _write_through(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _run(arguments: argparse.Namespace, workspace: Workspace) -> int:
    wanted = arguments.kernel or [kernels.DEFAULT_SERIES[-1]]
    machines = [_machine(arguments, series, workspace) for series in wanted]
    environment = dict(pair.split("=", 1) for pair in arguments.env)
    for name in ("TERM", "COLUMNS"):
        if name in os.environ:
            environment.setdefault(name, os.environ[name])
    job = Job(tuple(arguments.command), arguments.module, environment)
    if len(machines) == 1:
        return run(machines[0], job, workspace, _write_through, arguments.timeout)
    outcomes = run_on_all(machines, job, workspace, arguments.timeout)
    print("\n".join(str(outcome) for outcome in outcomes))
    if any(outcome.error for outcome in outcomes):
        return _EXIT_GUEST_FAILED
    return max(outcome.status or 0 for outcome in outcomes)


def main() -> int:
    """Run the command line; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = _parser().parse_args()
    workspace = _workspace()
    try:
        if arguments.verb == "releases":
            for series in kernels.DEFAULT_SERIES:
                print(series, kernels.newest(series).release)
            return 0
        if arguments.verb == "shell":
            machine = _machine(arguments, arguments.kernel or kernels.DEFAULT_SERIES[-1], workspace)
            return shell(machine, workspace, load_module=arguments.module)
        return _run(arguments, workspace)
    except (KernelMissingError, ValueError) as error:
        print(f"guest: {error}", file=sys.stderr)
        return _EXIT_USAGE
    except GuestError as error:
        print(f"guest: {error}", file=sys.stderr)
        return _EXIT_GUEST_FAILED


if __name__ == "__main__":
    sys.exit(main())
