# SPDX-License-Identifier: GPL-2.0
"""``python -m tests.coverage.collect [--into DIRECTORY] -- COMMAND``: lines that COMMAND runs.

coverage.py starts with every Python process of the virtual environment, forks included; the lines
of a killed process are lost. On a kernel with gcov the module's counters are kept as well: the
kernel adds up the counts of each load of it. Without --into everything goes to the run directory
of the guest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from coverage import Coverage
from coverage.exceptions import NoDataError

from tests.coverage.runs import ROOT, Run, fingerprint

_GCOV = Path("/sys/kernel/debug/gcov")
_CONFIGURATION = ROOT / "pyproject.toml"
_EVERYBODY_WRITES = 0o1777


def _measured(command: Sequence[str], directory: Path) -> int:
    """Run a command with coverage.py in each of its processes; return its exit status."""
    directory.chmod(_EVERYBODY_WRITES)  # some tests run the command line as nobody
    environment = {
        **os.environ,
        "COVERAGE_PROCESS_START": str(_CONFIGURATION),
        "COVERAGE_ROOT": str(ROOT),
        "COVERAGE_FILE": str(directory / "python"),
    }
    status = subprocess.run(command, env=environment, check=False).returncode
    return status if status >= 0 else 128 - status


def _combine(directory: Path, into: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="combined-") as name:
        # in a local file first: a file system of the host makes each write wait
        local = Path(name, "python")
        combined = Coverage(data_file=str(local), config_file=str(_CONFIGURATION))
        for path in sorted(directory.iterdir()):
            # the file of a process that still runs after the tests may come or go meanwhile
            with suppress(NoDataError):
                combined.combine([str(path)])
        combined.save()
        shutil.copy(local, into)


def save_counters(module_directory: Path, into: Path, gcov: Path = _GCOV) -> None:
    """Keep gcov's data on the module that was compiled in ``module_directory``.

    Each file of counters needs the file that maps it to lines, which the next build
    replaces: it is copied as well.
    """
    counters = sorted((gcov / module_directory.relative_to("/")).glob("*.gcda"))
    assert counters, f"the kernel counted nothing of {module_directory}: is it built for gcov?"
    into.mkdir()
    for path in counters:
        # files of debugfs have no size
        (into / path.name).write_bytes(path.read_bytes())
        lines = path.with_suffix(".gcno")
        shutil.copy(lines.resolve(), into / lines.name)


def collect(command: Sequence[str], into: Path) -> int:
    """Run ``command``; keep the lines that it ran in ``into``. Returns its exit status."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    run = Run(into)
    sources = fingerprint()
    with tempfile.TemporaryDirectory(prefix="coverage-") as name:
        status = _measured(command, Path(name))
        if not any(Path(name).iterdir()):
            print(f"coverage: {command[0]} is not of the virtual environment", file=sys.stderr)
            return status or 1
        module = None
        if _GCOV.is_dir() and "IPTTRACE_KO" in os.environ:
            module = Path(os.environ["IPTTRACE_KO"]).resolve().parent
            save_counters(module, run.module_data)
        _combine(Path(name), run.python_data)
    shared, sharers = os.environ.get("IPTT_SHARED", ""), os.environ.get("IPTT_SHARERS", "1")
    run.describe(command, sources, module, shared=shared, sharers=int(sharers))
    return status


def main() -> int:
    """Run the command; exit as it did."""
    parser = argparse.ArgumentParser(description=__doc__)
    in_guest = os.environ.get("IPTT_RUN_DIR")
    parser.add_argument("--into", type=Path, default=in_guest and Path(in_guest, "coverage"))
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    if arguments.into is None:
        parser.error("outside a guest, --into is needed")
    return collect(arguments.command, arguments.into)


if __name__ == "__main__":
    sys.exit(main())
