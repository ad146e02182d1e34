# SPDX-License-Identifier: GPL-2.0
"""Cost of the start of commands, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

The CPU time of a process there is its instructions, the kernel's for it included. ``trace`` is
measured until it has printed its first event, of a datagram over loopback that meets one rule. Each
command runs several times; the first warms up (bytecode, compiled programs, the verification of the
walk), and the least of the others counts. "The first since boot" finds no programs of an earlier
trace, and loads those of a package.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from installer import objects
from ipttctl.programs.trace import remove_trace_pins
from tests.kernel.support.cli import IPTTCTL
from tests.kernel.support.network import enter_namespace, namespace

RUNS = 4

#: name -> command, and whether it is measured until its first line of data
COMMANDS: dict[str, tuple[tuple[str, ...], bool]] = {
    "python": ((sys.executable, "-c", "pass"), False),
    "python, construct": ((sys.executable, "-c", "import construct"), False),
    "python, typer": ((sys.executable, "-c", "import typer"), False),
    "python, numpy": ((sys.executable, "-c", "import numpy"), False),
    "ipttctl --help": ((*IPTTCTL, "--help"), False),
    "ipttctl links": ((*IPTTCTL, "links"), False),
    "ipttctl trace, first event": ((*IPTTCTL, "trace", "--lines", "-o", "json"), True),
}


#: as the program itself, but that it finds programs where a package has them
PACKAGED = """
import sys
from pathlib import Path
from ipttctl.programs import trace
package = Path(sys.argv.pop(1))
trace.object_file = lambda name: package / name
from ipttctl.__main__ import main
main()
"""


def whole(command: tuple[str, ...]) -> float:
    """The instructions of a command until its end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return (usage.ru_utime + usage.ru_stime) * 1e9


def until_first_line(command: tuple[str, ...]) -> float:
    """The instructions of a command until it has printed an event, while datagrams are sent."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdout
        assert process.stderr
        receiver.bind(("127.0.0.1", 0))
        while not process.stderr.readline().startswith(b"tracing: link"):
            assert process.poll() is None
        sender.sendto(b"x", receiver.getsockname())
        # the head of the stream, and an event
        assert process.stdout.readline()
        assert process.stdout.readline()
        taken = sum(map(_run_time, Path(f"/proc/{process.pid}/task").iterdir()))
        process.terminate()
        process.stderr.read()
        process.stdout.read()
    return taken


def _run_time(task: Path) -> float:
    # a thread may end meanwhile
    with suppress(OSError):
        return float((task / "schedstat").read_text().split()[0])
    return 0.0


def main() -> int:
    """Measure and print a table."""
    with namespace("bench") as place:
        place.iptables("-A", "OUTPUT", "-p", "udp")
        enter_namespace(place.path)
        print(f"kernel {os.uname().release}, Python {sys.version.split()[0]}")
        print(f"{'command':36}{'million instructions':>22}")
        for name, (command, first) in COMMANDS.items():
            measure = until_first_line if first else whole
            report(name, [measure(command) for _ in range(RUNS)])
        with TemporaryDirectory() as directory:
            package = Path(directory, "objects")
            objects.build(Path.cwd(), package)
            program = (sys.executable, "-c", PACKAGED, str(package))
            command = (*program, "trace", "--lines", "-o", "json")
            taken = []
            for _ in range(RUNS):
                remove_trace_pins()
                taken.append(until_first_line(command))
            report("ipttctl trace, the first since boot", taken)
    return 0


def report(name: str, taken: list[float]) -> None:
    """Print the least of what the runs but for the first have taken."""
    print(f"{name:36}{min(taken[1:]) / 1e6:22.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
