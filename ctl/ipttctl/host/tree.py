# SPDX-License-Identifier: GPL-2.0
"""A host as ``doctor`` examines it: files below a root directory, and the tools there."""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ipttctl.bpf import tools
from ipttctl.errors import IpttctlError
from ipttctl.host import module, walk
from ipttctl.host.module import ModuleState
from ipttctl.rules import backends
from ipttctl.rules.backends import Backends
from ipttctl.system import netns


@dataclass(frozen=True)
class NamespacePath:
    """A network namespace, by a path to it."""

    name: str
    path: Path


def _backends(path: Path) -> Backends:
    with netns.Namespace(path) as found:
        return backends.backends(found.fileno())


@dataclass(frozen=True)
class Host:
    """A host: a directory that stands for ``/``, and the kernel that runs there."""

    root: Path = Path("/")
    release: str = field(default_factory=lambda: os.uname().release)
    machine: str = field(default_factory=lambda: os.uname().machine)
    python_path: Sequence[str] = field(default_factory=lambda: sys.path)
    module_state: Callable[[], ModuleState] = module.state
    backends: Callable[[Path], Backends] = _backends
    """The tables of the network namespace at a path; raises as ``rules.backends``."""
    kept_walk: Callable[[], walk.Walks] = walk.kept

    def read(self, name: str) -> str | None:
        """The content of a text file, or None if it cannot be read."""
        data = self.read_bytes(name)
        return None if data is None else data.decode(errors="replace")

    def read_bytes(self, name: str) -> bytes | None:
        """The content of a file, or None if it cannot be read."""
        try:
            return (self.root / name).read_bytes()
        except OSError:
            return None

    def has(self, name: str) -> bool:
        """Whether there is such a file or directory."""
        return (self.root / name).exists()

    def tool(self, name: str) -> str | None:
        """The file of a program, or None."""
        return tools.find(name, self.root)

    def run(self, name: str, *arguments: str) -> str | None:
        """The output of a program; None if it is missing or fails."""
        tool = self.tool(name)
        if tool is None:
            return None
        done = tools.run([tool, *arguments])
        return done.stdout if done.returncode == 0 else None

    @cached_property
    def configuration(self) -> Mapping[str, str] | None:
        """The kernel's options that are set, or None if they are unknown."""
        text = self.read(f"boot/config-{self.release}")
        text = text or self.read(f"lib/modules/{self.release}/config")
        if text is None and (packed := self.read_bytes("proc/config.gz")):
            with suppress(OSError, EOFError):
                text = gzip.decompress(packed).decode(errors="replace")
        return (
            None if text is None else dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))
        )

    @cached_property
    def module_file(self) -> Path | None:
        """The module that `ipttctl module load` would load."""
        own = module.own_file(self.release, self.root / "var/lib/ipttctl")
        return own if own.exists() else self.installed_module(self.release)

    def installed_module(self, release: str) -> Path | None:
        """The module that is installed for a kernel, or None."""
        return module.installed_file(release, self.root / "lib/modules")

    @cached_property
    def shows_namespaces(self) -> bool:
        """Whether the caller may see the network namespaces of all processes, and their tables."""
        try:
            (self.root / "proc/1/ns/net").readlink()
        except PermissionError:
            return False
        except OSError:
            pass
        return True

    @cached_property
    def module_works(self) -> bool:
        """Whether the module is loaded and answers; False also if that is unknown."""
        with suppress(IpttctlError):
            state = self.module_state()
            return state.loaded and state.problem is None
        return False

    def namespaces(self) -> Iterator[NamespacePath]:
        """The network namespaces of processes, and those kept by `ip netns`."""
        seen = set()
        processes = (entry.name for entry in (self.root / "proc").glob("[0-9]*"))
        for process in sorted(processes, key=int):
            path = self.root / "proc" / process / "ns/net"
            with suppress(OSError):
                inode = int(re.sub(r"\D", "", str(path.readlink())))
                if inode not in seen:
                    comm = (self.read(f"proc/{process}/comm") or "").strip()
                    name = "initial" if process == "1" else f"{inode} (of {comm}, pid {process})"
                    yield NamespacePath(name, path)
                seen.add(inode)
        for path in sorted((self.root / "run/netns").glob("*")):
            with suppress(OSError):
                if path.stat().st_ino not in seen:
                    yield NamespacePath(path.name, path)
