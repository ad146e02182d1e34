# SPDX-License-Identifier: GPL-2.0
"""Command line: run commands in guests, open a shell in one, list kernels.

Exit status: the command's own; 124 if a guest failed (crash, timeout, set-up), since then the
command proved nothing; 2 for wrong usage or a kernel that is not installed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from guest import accelerator, kernel_list
from guest.accelerator import Accelerator
from guest.errors import GuestError, KernelMissingError
from guest.job import Job, Workspace
from guest.kernel_list import ListedKernel
from guest.machine import Machine
from guest.matrix import failures, not_begun, run_on_all, shared_out, table
from guest.runner import run, shell

_EXIT_USAGE = 2
_EXIT_GUEST_FAILED = 124
_LENIENT_TARGET = "test"
"""The make target that a kernel newer than the last that passed does not fail.

Otherwise a new kernel in an archive could break it overnight.
"""


def _parser() -> argparse.ArgumentParser:
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--cpus", type=int, default=None, help="processors (2; 1 with --icount)")
    machine.add_argument("--memory", default="2G", help="memory, as QEMU takes it (%(default)s)")
    machine.add_argument("--append", action="append", default=[], help="another kernel argument")
    machine.add_argument("--accel", choices=[a.value for a in Accelerator], help="do not probe")
    machine.add_argument("--module", action="store_true", help="load the project's module first")

    parser = argparse.ArgumentParser(prog="python -m guest", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    runner = verbs.add_parser("run", parents=[machine], help="run a command in a guest")
    runner.add_argument(
        "--kernel",
        action="append",
        help="a name such as 6.12-rt; given more than once, guests run side by side (newest)",
    )
    runner.add_argument(
        "--target",
        help="run on the kernels of this make target instead, limited to those in --kernel if "
        "given, each with all its CPU counts",
    )
    runner.add_argument(
        "--guests",
        type=int,
        default=1,
        help="at most that many guests of each machine share the kernel test files (%(default)s)",
    )
    runner.add_argument(
        "--until",
        type=float,
        help="when to begin no further file of tests, in seconds since the epoch: guests that "
        "share them name those that are left",
    )
    runner.add_argument("--timeout", type=float, default=600, help="seconds (%(default)s)")
    runner.add_argument("--icount", action="store_true", help="a clock that counts instructions")
    runner.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    runner.add_argument("command", nargs="+", metavar="COMMAND")

    sheller = verbs.add_parser("shell", parents=[machine], help="an interactive guest")
    sheller.add_argument("--kernel", help="a name such as 6.12-rt (newest)")

    lister = verbs.add_parser("kernels", help="list the kernels of a make target")
    lister.add_argument("target", nargs="?", default="test", help="(%(default)s)")
    lister.add_argument("--installed", action="store_true", help="without those of other suites")

    releases = verbs.add_parser("releases", help="list the installed releases of kernels")
    releases.add_argument("kernel", nargs="*", help="names such as 6.12-rt (all of target test)")
    return parser


def _workspace() -> Workspace:
    """The project of this file, with the virtual environment in use, or the one in .build."""
    repository = Path(__file__).resolve().parents[1]
    build_dir = repository / ".build"
    venv = Path(sys.prefix) if sys.prefix != sys.base_prefix else build_dir / "venv"
    return Workspace(repository, build_dir, venv)


def _machine(
    arguments: argparse.Namespace,
    listed: ListedKernel,
    workspace: Workspace,
    cpus: int | None = None,
) -> Machine:
    kernel = listed.find()
    if arguments.accel is not None:
        chosen = Accelerator(arguments.accel)
    else:
        chosen = accelerator.choose(kernel, workspace.build_dir)
    icount = getattr(arguments, "icount", False)
    return Machine(
        kernel,
        chosen,
        cpus=cpus or arguments.cpus or (1 if icount else 2),
        memory=arguments.memory,
        icount=icount,
        append=tuple(arguments.append),
    )


def _write_through(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@dataclass(frozen=True)
class _Selection:
    """The machines of a run, and the kernels of other suites that are left out."""

    machines: list[Machine]
    uncounted: frozenset[str] = frozenset()
    """Kernels newer than the last that passed, if they do not count."""
    left_out: tuple[str, ...] = ()
    """A sentence for each kernel that is not available."""

    @property
    def decisive(self) -> list[str]:
        """The names of the kernels that count, in their order."""
        names = dict.fromkeys(machine.kernel.name for machine in self.machines)
        return [name for name in names if name not in self.uncounted]


def _selection(arguments: argparse.Namespace, workspace: Workspace) -> _Selection:
    named = [kernel_list.named(name) for name in arguments.kernel or ()]
    if arguments.target is None:
        wanted = named or [kernel_list.default_kernel()]
        return _Selection([_machine(arguments, listed, workspace) for listed in wanted])
    machines, uncounted, left_out = [], set(), []
    for listed in kernel_list.of_target(arguments.target):
        if named and listed not in named:
            continue
        try:
            kernel = listed.find()
        except KernelMissingError as error:
            if not listed.suite:
                raise
            left_out.append(f"LEFT OUT: kernel {listed.name}: {error}")
            continue
        if listed.is_newer(kernel) and arguments.target == _LENIENT_TARGET:
            uncounted.add(listed.name)
            if not kernel.module(workspace.build_dir).exists():
                left_out.append(
                    f"FAILED: the module does not build for {kernel.release}, which is newer than "
                    f"{listed.passed}, the last that passed: does not count here"
                )
                continue
        machines += [
            _machine(arguments, listed, workspace, cpus)
            for cpus in listed.targets[arguments.target]
            if arguments.cpus in {None, cpus}
        ]
    return _Selection(machines, frozenset(uncounted), tuple(left_out))


def _run(arguments: argparse.Namespace, workspace: Workspace) -> int:
    selection = _selection(arguments, workspace)
    machines = selection.machines
    environment = dict(pair.split("=", 1) for pair in arguments.env)
    for name in ("TERM", "COLUMNS"):
        if name in os.environ:
            environment.setdefault(name, os.environ[name])
    if arguments.target:
        environment["IPTT_TARGET"] = arguments.target
        environment["IPTT_DEALT_AMONG"] = " ".join(selection.decisive)
    if not machines:
        raise ValueError(f"no kernel of target {arguments.target} is among those asked for")
    job = Job(tuple(arguments.command), arguments.module, environment)
    guests = min(arguments.guests, os.cpu_count() or 1)
    if len(machines) * guests == 1 and not selection.uncounted and not selection.left_out:
        return run(machines[0], job, workspace, _write_through, arguments.timeout)
    assignments = shared_out(machines, job, workspace, guests)
    outcomes = [
        replace(outcome, counts=outcome.machine.kernel.name not in selection.uncounted)
        for outcome in run_on_all(assignments, workspace, arguments.timeout, arguments.until)
    ]
    print(table(outcomes))
    # at the very end: of a long log often only that is kept
    for line in failures(outcomes):
        print(line)
    for sentence in (*not_begun(assignments), *selection.left_out):
        print(sentence)
    decisive = [outcome for outcome in outcomes if outcome.counts]
    if any(outcome.error for outcome in decisive):
        return _EXIT_GUEST_FAILED
    return max((outcome.status or 0 for outcome in decisive), default=0)


def _list_releases(names: list[str]) -> int:
    wanted = [kernel_list.named(name) for name in names] or kernel_list.of_target("test")
    # kernels that only differ in their arguments are one release
    here = [listed for listed in wanted if listed.package and not listed.suite]
    for release in dict.fromkeys(listed.find().release for listed in here):
        print(release)
    return 0


def main() -> int:
    """Run the command line; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = _parser().parse_args()
    workspace = _workspace()
    try:
        if arguments.verb == "kernels":
            listing = kernel_list.of_target(arguments.target)
            wanted = [item for item in listing if not (arguments.installed and item.suite)]
            print(" ".join(item.name for item in wanted))
            return 0
        if arguments.verb == "releases":
            return _list_releases(arguments.kernel)
        if arguments.verb == "shell":
            name = arguments.kernel
            listed = kernel_list.named(name) if name else kernel_list.default_kernel()
            machine = _machine(arguments, listed, workspace)
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
