# SPDX-License-Identifier: GPL-2.0
"""Run the tests against each planted fault, on the debug kernel: they must fail, and say why.

First the same tests run against the unchanged module, and must pass.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from guest.debug.module import build_module
from guest.debug.recipe import Recipe
from guest.errors import GuestError
from tests.planted.faults import FAULTS, PlantedFault

_REPOSITORY = Path(__file__).resolve().parents[2]
_BUILD = _REPOSITORY / ".build"
_RECIPE = Recipe("kasan")


def plant(fault: PlantedFault, source: Path) -> None:
    """Copy the module's source to ``source`` and apply the fault.

    Raises:
        GuestError: the patch does not apply any more.
    """
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(_REPOSITORY / "kmod_netlink", source)
    patched = subprocess.run(
        ["patch", "--quiet", "--fuzz=0", "-p2", "-d", source, "-i", fault.patch],
        capture_output=True,
        text=True,
        check=False,
    )
    if patched.returncode:
        raise GuestError(f"{fault.patch.name} does not fit the module:\n{patched.stdout}")


def _planted_module(fault: PlantedFault) -> Path:
    """Build the module with the fault, in a directory of its own.

    Raises:
        GuestError: the patch does not apply, or the module does not build.
    """
    source = _BUILD / "planted" / fault.name / "source"
    plant(fault, source)
    directory = source.with_name("module")
    build_module(_RECIPE, source, directory)
    return directory / "ipttrace.ko"


def _run(tests: tuple[str, ...], module: Path | None) -> tuple[int, str]:
    """Run kernel tests in a guest of the debug kernel; return their exit status and output."""
    command = [sys.executable, "-m", "guest", "run", "--kernel", _RECIPE.name]
    command += ["--timeout", "1800"]
    if module:
        command += ["--env", f"IPTTRACE_KO={module}"]
    command += ["--", "python", "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=_REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode(errors="replace")


def _passes(faults: tuple[PlantedFault, ...]) -> bool:
    tests = tuple(dict.fromkeys(test for fault in faults for test in fault.tests))
    status, output = _run(tests, None)
    if status:
        print(f"{output}\nThe tests do not pass without a fault: nothing is proven.")
        return False
    print("no fault: the tests pass", flush=True)
    return True


def _is_found(fault: PlantedFault) -> bool:
    status, output = _run(fault.tests, _planted_module(fault))
    report = re.search(f".*{fault.report}.*", output)
    if status == 0 or report is None:
        how = "passed" if status == 0 else "failed for another reason"
        print(f"{output}\n{fault.name}: NOT FOUND: {fault.meaning}, and the run {how}.")
        return False
    print(f"{fault.name}: found: {fault.meaning}\n    {report[0].strip()}", flush=True)
    return True


def main() -> int:
    """Prove each fault, or the one named."""
    names = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("fault", nargs="*", default="all", choices=[*names, "all"])
    chosen = parser.parse_args().fault
    faults = tuple(fault for fault in FAULTS if chosen == "all" or fault.name in chosen)
    try:
        if not _passes(faults):
            return 1
        missed = [fault.name for fault in faults if not _is_found(fault)]
    except GuestError as error:
        print(f"planted faults: {error}", file=sys.stderr)
        return 1
    print(f"{len(faults) - len(missed)} of {len(faults)} planted faults were found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
