# SPDX-License-Identifier: GPL-2.0
"""The installed machine, as both guests see it.

      /run/machine          overlay: the root directory of the machine's programs  (chroot)
        |-- upper: /run/disk/changes    on the disk, kept from one boot to the next
        `-- lower: /                    the host's root file system, read-only; or $IPTT_LOWER,
                                        the root of another suite
      /run/disk             ext4 on a loop device on $IPTT_STATE/disk.ext4, shared with the host

The guests boot without this disk, over the host's root, and without an init system: the tests do
the work of the machine's boot services where it is needed. Its package database, its kernels
and its programs are the host's, plus the contents of the disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

DISK: Final = "disk.ext4"

_DISK_AT: Final = Path("/run/disk")
_ROOT: Final = Path("/run/machine")
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class InstalledMachine:
    """Runs programs on the machine and gives access to its files."""

    def path(self, name: str) -> Path:
        """A file of the machine."""
        return _ROOT / name.lstrip("/")

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program; its output can be read."""
        return subprocess.Popen(
            ["chroot", str(_ROOT), *command],
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, status: int = 0) -> str:
        """Run a program, which must end with ``status``; return its output."""
        process = self.start(*command)
        # the time that a boot may take is limited by whoever booted
        output, errors = process.communicate()
        print(f"$ {' '.join(command)}\n{output}{errors}")
        assert process.returncode == status, (command, process.returncode)
        return output

    def dkms_has(self, release: str) -> bool:
        """Whether DKMS has built and installed the module for a kernel."""
        return "installed" in self.run("dkms", "status", "-m", "ipttrace", "-k", release)


@contextmanager
def machine() -> Iterator[InstalledMachine]:
    """The machine, with its disk mounted."""
    with ExitStack() as stack:
        _run("modprobe", "-a", "loop", "ext4", "overlay")
        _mount(stack, _DISK_AT, "-o", "loop", str(Path(os.environ["IPTT_STATE"], DISK)))
        for name in ("changes", "work"):
            (_DISK_AT / name).mkdir(exist_ok=True)
        lower = os.environ.get("IPTT_LOWER", "/")
        layers = f"lowerdir={lower},upperdir={_DISK_AT}/changes,workdir={_DISK_AT}/work"
        _mount(stack, _ROOT, "-t", "overlay", "-o", layers, "machine")
        for name in ("proc", "sys", "dev"):
            _mount(stack, _ROOT / name, "--rbind", "--make-rslave", f"/{name}")
        for name in ("run", "tmp"):
            _mount(stack, _ROOT / name, "-t", "tmpfs", "tmpfs")
        yield InstalledMachine()


def bring(file: Path, machine_path: Path) -> None:
    """Copy a file of the host to the machine."""
    shutil.copy(file, machine_path)


def _mount(stack: ExitStack, place: Path, *arguments: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    _run("mount", *arguments, str(place))
    # lazily, in case something still runs there; the disk itself waits for its last user
    stack.callback(_run, "umount", "--recursive", "--lazy", str(place))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
