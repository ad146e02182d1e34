# SPDX-License-Identifier: GPL-2.0
"""Build the module for kernels of other suites: ``python -m guest.suite_modules 7.x``.

A suite that is not available is reported and left out. So is a kernel newer than the last that
passed, if the module does not build for it. ``python -m guest run`` decides whether this counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from guest import kernel_list
from guest.errors import GuestError, KernelMissingError
from guest.kernel_list import ListedKernel
from guest.kernels import Kernel
from guest.suites import Suite

_REPOSITORY = Path(__file__).resolve().parents[1]
_BUILD = _REPOSITORY / ".build"
_BUILD_SCRIPT = _REPOSITORY / "guest" / "build-module.sh"


def _build(suite: Suite, kernel: Kernel, source: Path, module: Path) -> None:
    """Build one module with the suite's compiler. On failure no earlier module is left.

    Raises:
        GuestError: the module does not build.
    """
    command = suite.command(
        str(_BUILD_SCRIPT), str(source), str(module.parent), kernel.release, shared=_REPOSITORY
    )
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        module.unlink(missing_ok=True)
        raise GuestError(f"{source.name} does not build")


def prepare(listed: ListedKernel) -> int:
    """Make or refresh the kernel's root, and build for it; return the exit status."""
    suite = Suite(listed.suite, listed.package)
    try:
        suite.prepare()
        kernel = listed.find()
    except KernelMissingError as error:
        print(f"LEFT OUT: kernel {listed.name}: {error}", file=sys.stderr)
        return 0
    try:
        for source, module in (
            (_REPOSITORY / "kmod_netlink", kernel.module(_BUILD)),
            (
                _REPOSITORY / "tests" / "kernel" / "modules",
                kernel.test_modules(_BUILD) / "xt_errdrop.ko",
            ),
        ):
            _build(suite, kernel, source, module)
    except GuestError as error:
        print(f"FAILED: {kernel.release} of {listed.suite}: {error}", file=sys.stderr)
        if listed.is_newer(kernel):
            print(f"It is newer than {listed.passed}, the last that passed", file=sys.stderr)
            return 0
        return 1
    return 0


def main() -> int:
    """Prepare those of the named kernels that belong to other suites."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernel", nargs="*", help="names such as 7.x")
    try:
        wanted = [kernel_list.named(name) for name in parser.parse_args().kernel]
        return max([prepare(listed) for listed in wanted if listed.suite], default=0)
    except GuestError as error:
        print(f"suites: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
