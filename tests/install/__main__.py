# SPDX-License-Identifier: GPL-2.0
"""Boot the machine twice: install the package under one kernel, use it under the other.

The exit status is that of pytest in the guest that failed, or 124 if the guest itself did.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from guest import accelerator, kernel_list
from guest.errors import GuestError
from guest.job import Job, Workspace
from guest.machine import Machine
from guest.runner import run
from tests.install.machine import DISK

_ROOT: Final = Path(__file__).resolve().parents[2]
_PYTEST: Final = ("python", "-m", "pytest", "-v", "-p", "no:cacheprovider")
_DISK_SIZE: Final = 1 << 30
_BOOTS: Final = (("6.12", "test_first_boot.py"), ("6.1", "test_second_boot.py"))
"""The kernel of each boot, and the file of its tests."""


def _write_through(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def new_disk(workspace: Workspace) -> Path:
    """A directory with an empty disk for the machine."""
    state = workspace.build_dir / "install" / time.strftime("%Y%m%d-%H%M%S")
    state.mkdir(parents=True)
    with (state / DISK).open("wb") as file:
        # sparse: it grows as it is written to
        file.truncate(_DISK_SIZE)
    subprocess.run(["/sbin/mkfs.ext4", "-q", str(state / DISK)], check=True)
    return state


def main() -> int:
    """Run the command line; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(prog="python -m tests.install", description=__doc__)
    parser.add_argument("package", type=Path, help="the Debian package")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds of each boot")
    arguments = parser.parse_args()

    workspace = Workspace(_ROOT, _ROOT / ".build", Path(sys.prefix))
    state = new_disk(workspace)
    kernels = {name: kernel_list.named(name).find() for name, _ in _BOOTS}
    environment = {
        "IPTT_STATE": str(state),
        "IPTT_PACKAGE": str(arguments.package.resolve()),
        "IPTT_RELEASES": " ".join(kernel.release for kernel in kernels.values()),
    }
    for name, tests in _BOOTS:
        kernel = kernels[name]
        machine = Machine(kernel, accelerator.choose(kernel, workspace.build_dir))
        command = (*_PYTEST, f"tests/install/{tests}")
        print(f"--- boot of {kernel.release}, disk {state / DISK}", flush=True)
        job = Job(command, environment=environment, shared=(state,))
        try:
            status = run(machine, job, workspace, _write_through, arguments.timeout)
        except GuestError as error:
            print(f"guest: {error}", file=sys.stderr)
            return 124
        if status:
            return status
    (state / DISK).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
