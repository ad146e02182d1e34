# SPDX-License-Identifier: GPL-2.0
"""One use of a guest: the command, and the directory that both sides share for it."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from guest.errors import GuestLostError, GuestSetupError
from guest.kernels import Kernel

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL_LINES = 60


@dataclass(frozen=True)
class Workspace:
    """The directories of the project and of its build products."""

    repository: Path
    build_dir: Path
    venv: Path


@dataclass(frozen=True)
class Job:
    """A command for a guest, and the guest's preparation for it."""

    command: tuple[str, ...]
    load_module: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[Path, ...] = ()
    """Directories, besides the run's own, in which the guest's writes reach the host."""


def compiled_programs(workspace: Workspace) -> Path:
    """The directory of BPF programs that guests have compiled (``ipttctl.bpf.spec_cache``).

    Entries are named by a hash of all their inputs, the kernel included.
    """
    return workspace.build_dir / "cache" / "bpf"


def compiled_python(workspace: Workspace) -> Path:
    """The directory of the bytecode that the host has compiled, which guests read too.

    Emulated, the compilation of all tests alone takes minutes. What guests write there ends with
    them.
    """
    return workspace.build_dir / "cache" / "python"


def shared_directory(workspace: Workspace) -> Path:
    """Make a new directory for guests that share a run."""
    runs = workspace.build_dir / "guest"
    runs.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="shared-", dir=runs))


class RunDirectory:
    """The directory of one run, shared with the guest: its job, its console, its status."""

    def __init__(self, workspace: Workspace, kernel: Kernel) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{stamp}-{kernel.name}-{os.getpid()}-{secrets.token_hex(2)}"
        self.path = workspace.build_dir / "guest" / name
        self.path.mkdir(parents=True)
        self.console = self.path / "console.log"
        self._status = self.path / "status"
        self._token = secrets.token_hex(8)

    def write_job(self, job: Job, workspace: Workspace, kernel: Kernel) -> None:
        """Write the job into the directory, where the guest finds it."""
        variables = {
            "PATH": f"{workspace.venv / 'bin'}:{_SYSTEM_PATH}",
            "IPTTRACE_KO": str(kernel.module(workspace.build_dir)),
            "IPTT_TEST_MODULES": str(kernel.test_modules(workspace.build_dir)),
            "IPTT_KERNEL": kernel.name,
            "IPTT_RUN_DIR": str(self.path),
            "IPTTCTL_CACHE": str(compiled_programs(workspace)),
            "PYTHONPYCACHEPREFIX": str(compiled_python(workspace)),
            **job.environment,
        }
        private = {
            "JOB_TOKEN": self._token,
            "JOB_LOAD_MODULE": "yes" if job.load_module else "no",
        }
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        lines += [f"{name}={shlex.quote(value)}" for name, value in private.items()]
        (self.path / "job.env").write_text("\n".join(lines) + "\n")
        directory = shlex.quote(str(workspace.repository))
        (self.path / "job.sh").write_text(f"cd {directory} &&\n{shlex.join(job.command)}\n")

    def exit_status(self, why_it_ended: str) -> int:
        """The command's exit status as the guest reported it.

        Raises:
            GuestSetupError: the guest could not be prepared; the command did not run.
            GuestLostError: there is no report.
        """
        try:
            token, stage, status = self._status.read_text().split()
        except (OSError, ValueError):
            raise GuestLostError(why_it_ended, self.console_tail()) from None
        if token != self._token:
            raise GuestLostError("the status report is not of this run", self.console_tail())
        if stage != "command":
            raise GuestSetupError(f"the guest could not be prepared; see {self.console}")
        return int(status)

    def keep_compiled(self, workspace: Workspace) -> None:
        """Keep the guest's compiled programs for the next guest with the same kernel."""
        cache = compiled_programs(workspace)
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        brought = self.path / "compiled"
        for entry in brought.glob("*.json"):
            entry.replace(cache / entry.name)
        shutil.rmtree(brought, ignore_errors=True)

    def console_tail(self) -> str:
        """The last lines of the guest's console."""
        try:
            text = self.console.read_text(errors="replace")
        except OSError:
            return "(no console output)"
        return "\n".join(text.splitlines()[-_TAIL_LINES:])
