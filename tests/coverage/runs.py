# SPDX-License-Identifier: GPL-2.0
"""The coverage data of one run of tests: lines that ran, and the state of the sources."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from installer.wheel import LEFT_BEHIND

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / ".build"

_DECIDING: Final = ("kmod_netlink", "bpf", "ctl", "proto", "tests/kernel")
"""Directories of the measured code and of the code that measures it in guests."""
_SUFFIXES: Final = {".c", ".h", ".py"}
_MANIFEST: Final = "run.json"


def _made(path: Path) -> bool:
    """Whether a build of the module in place generates the file."""
    return any(path.match(pattern) for pattern in LEFT_BEHIND)


def fingerprint(root: Path = ROOT) -> str:
    """A hash of the sources: coverage is valid for one state of them only."""
    found = (path for part in _DECIDING for path in (root / part).rglob("*"))
    digest = hashlib.sha256()
    for path in sorted(path for path in found if path.suffix in _SUFFIXES and not _made(path)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Run:
    """The directory in which a run keeps its data."""

    directory: Path

    @property
    def python_data(self) -> Path:
        """coverage.py's data of all processes, combined."""
        return self.directory / "python"

    @property
    def module_data(self) -> Path:
        """The module's .gcda and .gcno files; absent if the kernel does not count."""
        return self.directory / "module"

    @property
    def of_the_module(self) -> bool:
        """Whether the kernel counted lines of the module."""
        return self.module_data.is_dir()

    def describe(
        self,
        command: Sequence[str],
        sources: str,
        module: Path | None,
        *,
        shared: str = "",
        sharers: int = 1,
    ) -> None:
        """Write the manifest of the run; without it the run does not count.

        Runs with the same ``shared`` are parts of one, ``sharers`` in number.
        """
        text = {
            "command": list(command), "sources": sources, "module": str(module or ""),
            "shared": shared, "sharers": sharers,
        }  # fmt: skip  # pairs together
        (self.directory / _MANIFEST).write_text(json.dumps(text) + "\n")

    def _manifest(self) -> dict[str, object]:
        try:
            content = json.loads((self.directory / _MANIFEST).read_text())
        except FileNotFoundError:
            return {}
        assert isinstance(content, dict)
        return content

    @property
    def sources(self) -> str:
        """Fingerprint of the sources of the run; empty if the run did not get to its end."""
        return str(self._manifest().get("sources", ""))

    @property
    def command(self) -> list[str]:
        """The command of the run."""
        command = self._manifest().get("command", [])
        assert isinstance(command, list)
        return command

    @property
    def module_directory(self) -> str:
        """The directory in which the module was compiled."""
        return str(self._manifest().get("module", ""))

    @property
    def share(self) -> tuple[object, object]:
        """The key that runs of one share have in common, and their number."""
        manifest = self._manifest()
        return manifest.get("shared") or self.directory, manifest.get("sharers", 1)

    @property
    def of_every_kernel_test(self) -> bool:
        """Whether the kernel tests ran without a restriction."""
        return self.command[-1:] == ["tests/kernel"]


def complete(found: Sequence[Run]) -> bool:
    """Whether every kernel test has run on a kernel that counts lines of the module."""
    shares = Counter(run.share for run in found if run.of_the_module and run.of_every_kernel_test)
    return any(count == sharers for (_, sharers), count in shares.items())


def runs(build: Path = BUILD, root: Path = ROOT) -> list[Run]:
    """All runs of the current sources, in guests and outside."""
    now = fingerprint(root)
    directories = (*build.glob("guest/*/coverage"), *build.glob("coverage/*"))
    return [run for run in map(Run, sorted(directories)) if run.sources == now]
