# SPDX-License-Identifier: GPL-2.0
"""Build the package on Debian 13, and install and use it there, under Debian 13's kernel.

Debian 13 is the root of the kernel's suite (``guest.suites``). The exit status is that of
pytest in the guest, or 124 if the guest itself failed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from guest import accelerator, kernel_list
from guest.errors import GuestError
from guest.job import Job, Workspace
from guest.machine import Machine
from guest.runner import run
from guest.suites import Suite
from tests.install.__main__ import new_disk
from tests.install.machine import DISK

_ROOT: Final = Path(__file__).resolve().parents[2]
_BUILDERS: Final = ("build-essential", "debhelper", "python3-venv")
_USED: Final = ("dkms", "iptables", "iproute2", "iputils-ping", "man-db")


def needed_packages() -> list[str]:
    """The packages to build, install and use ours with; its control file names most."""
    control = (_ROOT / "debian" / "control").read_text()
    lines = "\n".join(line for line in control.splitlines() if not line.startswith("#"))
    fields = re.findall(r"^(?:Build-)?Depends:((?:.*\n)(?:[ ].*\n)*)", lines, re.MULTILINE)
    listed = [one.split()[0] for field in fields for one in field.split(",")]
    # debhelper provides the one in the version that is asked for
    own = [name for name in listed if not name.startswith(("$", "debhelper-compat"))]
    return list(dict.fromkeys([*_BUILDERS, *_USED, *own]))


def _build(suite: Suite, workspace: Workspace) -> Path:
    """Build the package in the suite's root from the files that git tracks; return its path.

    Raises:
        SuiteError: the build dependencies cannot be installed.
        subprocess.CalledProcessError: the build failed.
    """
    suite.install(*needed_packages())
    work = workspace.build_dir / "install" / suite.name
    shutil.rmtree(work, ignore_errors=True)
    source, wheels = work / "source", work / "wheels"
    source.mkdir(parents=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().rstrip("\0").split("\0"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(_ROOT / name, source / name, follow_symlinks=False)
    # the root lacks this machine's configuration of pip's package index
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(wheels)]
    constraints = workspace.build_dir / "installer" / "constraints.txt"
    subprocess.run(
        [*pip, "-r", "installer/requirements.txt", "-c", constraints], cwd=_ROOT, check=True
    )
    offline = ("PIP_NO_INDEX=1", f"PIP_FIND_LINKS={wheels}")
    command = ("env", *offline, "make", "-C", str(source), "deb")
    subprocess.run(suite.command(*command, shared=_ROOT), check=True)
    (package,) = (source / ".build" / "dist").glob("*.deb")
    return package


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.install.debian_13", description=__doc__)
    parser.add_argument("--kernel", default="6.12-trixie", help="(%(default)s)")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds of the guest")
    arguments = parser.parse_args()

    workspace = Workspace(_ROOT, _ROOT / ".build", Path(sys.prefix))
    try:
        listed = kernel_list.named(arguments.kernel)
        kernel = listed.find()
        suite = Suite(listed.suite, listed.package)
        package = _build(suite, workspace)
        state = new_disk(workspace)
        environment = {
            "IPTT_STATE": str(state),
            "IPTT_PACKAGE": str(package),
            "IPTT_RELEASES": f"{kernel.release} {kernel.release}",
            "IPTT_LOWER": str(suite.root),
        }
        command = ("python", "-m", "pytest", "-v", "-p", "no:cacheprovider")
        job = Job(
            (*command, "tests/install/test_debian_13.py"), environment=environment, shared=(state,)
        )
        machine = Machine(kernel, accelerator.choose(kernel, workspace.build_dir))
        status = run(machine, job, workspace, _write_through, arguments.timeout)
    except GuestError as error:
        print(f"guest: {error}", file=sys.stderr)
        return 124
    (state / DISK).unlink()
    return status


def _write_through(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
