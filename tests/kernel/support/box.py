# SPDX-License-Identifier: GPL-2.0
"""The root of ``guest.tools_root`` as a box: what runs in it ends with it, and changes nothing.

A box has mounts, processes, a host name and IPC objects of its own, in a network namespace that
exists. Its root is an overlay in memory, so that every test finds the packages as they were
installed. There is no systemd in it: a test starts the daemons that it needs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from guest import tools_root
from tests.kernel.support.kernel import COMMAND_TIMEOUT, run, wait_for
from tests.kernel.support.network import Namespace

#: seconds for the start of a daemon, which an emulated processor is slow at
PATIENCE: Final = 4 * COMMAND_TIMEOUT

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT: Final = (f"PATH={_PATH}", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb")

#: arguments: an empty directory, the root. The first process of the box collects the others
_FIRST: Final = """set -e
mount -t tmpfs -o size=1G box "$1"
mkdir "$1"/{root,upper,work}
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" box "$1/root"
cd "$1/root"
mkdir -p lib/modules
mount --rbind /lib/modules lib/modules
mount --rbind /dev dev
mkdir -p dev/shm
mount -t tmpfs shm dev/shm
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mkdir -p run/lock run/dbus run/netns
hostname box
exec chroot . sh -c 'echo ready; exec tini-static -- sleep infinity >/dev/null 2>&1'
"""


@dataclass(frozen=True)
class _Inner(Namespace):
    """A network namespace without a name."""

    file: Path

    @property
    def path(self) -> Path:
        """The file that refers to it."""
        return self.file


@dataclass(frozen=True)
class Box:
    """A running box."""

    pid: int
    """Its first process."""

    net: Namespace
    _daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """Its root directory, as seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def command(self, *command: str) -> list[str]:
        """A command line that runs a command in the box."""
        enter = ("--mount", "--pid", "--ipc", "--uts", "--net", "--root", "--wd")
        target = ("nsenter", "--target", str(self.pid), *enter)
        return [*target, "--", "env", "-i", *_ENVIRONMENT, *command]

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command in the box and return its output; AssertionError if it fails."""
        return run(*self.command(*command), text=text, timeout=PATIENCE)

    def works(self, *command: str) -> bool:
        """Whether a command succeeds."""
        done = subprocess.run(self.command(*command), capture_output=True, check=False)
        return done.returncode == 0

    def write(self, path: str, text: str) -> None:
        """Write a file of the box."""
        file = self.root / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def start(self, *command: str, ready: Sequence[str]) -> None:
        """Start a daemon, which ends with the box, and wait until the command ``ready`` succeeds.

        Its output is /run/NAME.log of the box.
        """
        log = self.root / "run" / f"{Path(command[0]).name}.log"
        with log.open("w") as output, Path(os.devnull).open() as nothing:
            daemon = subprocess.Popen(
                self.command(*command), stdin=nothing, stdout=output, stderr=output
            )
        self._daemons.append(daemon)

        def is_ready() -> bool:
            status = daemon.poll()
            assert not status, f"{command[0]} ended: {status}: {log.read_text()[-3000:]}"
            return self.works(*ready)

        try:
            wait_for(is_ready, timeout=PATIENCE, what=f"{command[0]} answers")
        except AssertionError as error:
            error.add_note(log.read_text()[-3000:])
            raise

    def namespace_of(self, pid: int) -> Namespace:
        """The network namespace of a process, by its number in the box."""
        return _Inner(f"of process {pid}", self.root / "proc" / str(pid) / "ns" / "net")

    def end(self) -> None:
        """Wait for the end of all daemons, whose box is gone."""
        for daemon in self._daemons:
            daemon.wait(COMMAND_TIMEOUT)

    def start_dbus(self) -> None:
        """Start the system bus."""
        ask = ("dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/")
        daemon = ("dbus-daemon", "--system", "--nofork", "--nopidfile")
        self.start(*daemon, ready=(*ask, "org.freedesktop.DBus.ListNames"))


def _child(pid: int) -> int | None:
    """The only child of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return int(text) if text else None


@contextmanager
def box(net: Namespace) -> Iterator[Box]:
    """A box in a network namespace; all that runs in it is killed at the end."""
    root = tools_root.root()
    assert root.complete, "there is no root with the tools; run: make test-tools"
    run("modprobe", "overlay")
    directory = Path("/tmp") / f"box-{os.getpid()}"
    directory.mkdir(exist_ok=True)
    unshare = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
    line = ("ip", "netns", "exec", net.name, *unshare, "bash", "-c", _FIRST, "bash")
    with subprocess.Popen(
        [*line, str(directory), str(root.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "the box cannot be made"
            first = _child(process.pid)
            assert first is not None
            made = Box(first, net)
            yield made
        finally:
            process.kill()
    made.end()
    directory.rmdir()
