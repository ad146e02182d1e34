# SPDX-License-Identifier: GPL-2.0
"""Boot a guest, run one job in it, and return the job's exit status."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from guest.job import Job, RunDirectory, Workspace
from guest.machine import Machine

Sink = Callable[[bytes], None]
"""A function that takes the output of a job piece by piece, as it comes."""

_HERE = Path(__file__).resolve().parent
_CHUNK = 65536


def _environment(workspace: Workspace, temporary: str) -> dict[str, str]:
    """The environment for virtme-ng: its tools and our virtiofsd first on the path."""
    path = f"{_HERE}:{workspace.venv / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "TMPDIR": temporary}


@contextlib.contextmanager
def _own_group(
    command: list[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command as the leader of a process group that ends with the block."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _pump(
    process: subprocess.Popen[bytes],
    sink: Sink,
    console: IO[bytes],
    timeout: float,
    cancelled: threading.Event,
) -> bool:
    """Pass output on until the process ends; False if it is timed out or cancelled first."""
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, sink)
        selector.register(process.stderr, selectors.EVENT_READ, console.write)
        while selector.get_map():
            ready = selector.select(timeout=0.5)
            for key, _ in ready:
                piece = os.read(key.fd, _CHUNK)
                if piece:
                    key.data(piece)
                else:
                    selector.unregister(key.fileobj)
            if not ready and process.poll() is not None:
                break
            if cancelled.is_set() or time.monotonic() > deadline:
                return False
    return True


def run(
    machine: Machine,
    job: Job,
    workspace: Workspace,
    sink: Sink,
    timeout: float,
    *,
    cancelled: threading.Event | None = None,
) -> int:
    """Boot ``machine``, run ``job`` in it, send its output to ``sink``; return its exit status.

    Setting ``cancelled`` ends the guest.

    Raises:
        GuestSetupError: the guest could not be prepared for the job.
        GuestLostError: the guest ended, or was ended after ``timeout`` seconds, without a status.
    """
    directory = RunDirectory(workspace, machine.kernel)
    directory.write_job(job, workspace, machine.kernel)
    command = machine.virtme_command(workspace.repository, directory.path, *job.shared)
    command += ["--exec", shlex.join([str(_HERE / "run.sh"), str(directory.path)])]
    with (
        tempfile.TemporaryDirectory(prefix="ipttctl-guest-") as temporary,
        directory.console.open("wb", buffering=0) as console,
        _own_group(command, _environment(workspace, temporary)) as process,
    ):
        in_time = _pump(process, sink, console, timeout, cancelled or threading.Event())
    directory.keep_compiled(workspace)
    ended = "the guest ended without a status" if in_time else f"no status after {timeout:g} s"
    return directory.exit_status(f"{ended} (console: {directory.console})")


def shell(machine: Machine, workspace: Workspace, *, load_module: bool) -> int:
    """Boot ``machine`` with a shell on this terminal; return the status when it is left."""
    directory = RunDirectory(workspace, machine.kernel)
    directory.write_job(Job((), load_module=load_module), workspace, machine.kernel)
    command = machine.virtme_command(workspace.repository, directory.path)
    command.remove("-v")
    command += ["--append", f"guest_run_dir={directory.path}", "--shell", str(_HERE / "shell.sh")]
    with tempfile.TemporaryDirectory(prefix="ipttctl-guest-") as temporary:
        environment = _environment(workspace, temporary)
        try:
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            shutil.rmtree(directory.path, ignore_errors=True)
