# SPDX-License-Identifier: GPL-2.0
"""Kernels of suites other than this machine's, each suite in its own root file system.

A root below ``.build/suites`` holds the suite's kernel, headers and compiler. mmdebstrap makes it
from the archives of this machine's apt, with the other suite's name. Its apt has its own lists,
cache and state. The machine's own sources and packages do not change.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guest import kernels
from guest.errors import KernelMissingError
from guest.kernels import Kernel

DIRECTORY: Final = Path(__file__).resolve().parents[1] / ".build" / "suites"
_COMPLETE: Final = ".complete"
_REFRESHED_AFTER: Final = 12 * 3600
"""Seconds for which an archive is assumed to be unchanged."""
_TOOLS: Final = ("gcc", "make", "kmod", "libc6-dev")
_QUIET_APT: Final = ("-qq", "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-unsafe-io")
# no initramfs: the kernel boots without one
_ENVIRONMENT: Final = ("env", "INITRD=No", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")


class SuiteError(KernelMissingError):
    """A suite is not available: its archive does not answer, or lacks the package."""


@dataclass(frozen=True)
class Archive:
    """An archive that this machine's apt takes packages from."""

    uri: str
    release: str
    """The suite by its code name, as in ``bookworm-updates``."""
    keyring: str = ""


def sources(archives: list[Archive], codename: str, suite: str) -> list[str]:
    """The sources.list lines for a suite: its release, updates and security, and the suite itself.

    Raises:
        SuiteError: apt of this machine uses no archive of its own release.
    """
    base = suite.removesuffix("-backports")
    lines = []
    for archive in archives:
        if archive.release.removesuffix("-updates").removesuffix("-security") != codename:
            continue
        options = f" [signed-by={archive.keyring}]" if archive.keyring else ""
        wanted = [base + archive.release.removeprefix(codename)]
        if suite != base and archive.release == codename:
            wanted.append(suite)
        lines += [f"deb{options} {archive.uri} {release} main" for release in wanted]
    if not lines:
        raise SuiteError(f"apt has no archive of {codename} to take suite {suite} from")
    return lines


def _archives() -> list[Archive]:
    """The archives that this machine's apt is configured to use."""
    fields = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)"
    listed = _run("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
    found = []
    for line in listed.splitlines():
        uri, release, component, entry = line.split("|")
        if component == "main":
            found.append(Archive(uri, release, _keyring(Path(entry.rpartition(":")[0]))))
    return list(dict.fromkeys(found))


def _keyring(source: Path) -> str:
    """The keyring that a sources file names."""
    named = re.search(r"signed-by\s*[:=]\s*(/[^\s\],]+)", source.read_text(), re.IGNORECASE)
    return named.group(1) if named else ""


def _run(*command: str) -> str:
    """Run a command; returns its output.

    Raises:
        SuiteError: the command failed; the message has its error line.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        why = next((line for line in said if line.startswith("E:")), (said or ["no reason"])[-1])
        raise SuiteError(f"{command[0]}: {why.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Suite:
    """The root file system of a suite with one kernel in it."""

    name: str
    """The suite's name, as in ``trixie-backports``."""
    package: str
    """The package of the kernel's image; with a ``*``, the oldest package that matches."""

    @property
    def root(self) -> Path:
        """The directory of the root file system."""
        return DIRECTORY / self.name

    def kernel(self, name: str) -> Kernel:
        """The kernel in the root, under the given name.

        Raises:
            KernelMissingError: the root does not exist.
        """
        found = kernels.installed(self.root / "boot", self.root / "lib" / "modules")
        if not found or not (self.root / _COMPLETE).exists():
            raise KernelMissingError(
                f"kernel {name} of suite {self.name} is not in {DIRECTORY}; run: make suites"
            )
        latest = found[-1]
        return Kernel(name, latest.release, latest.image, latest.headers)

    def command(self, *command: str, shared: Path | None = None) -> list[str]:
        """A command line that runs a command in the root, with a host directory mounted in it."""
        mounts = [f"mount -t proc proc {self.root}/proc"]
        if shared is not None:
            mounts.append(f"mkdir -p {self.root}{shared}")
            mounts.append(f"mount --bind {shared} {self.root}{shared}")
        script = "; ".join(["set -e", *mounts, f'exec chroot {self.root} "$@"'])
        return ["unshare", "--mount", "bash", "-c", script, "bash", *_ENVIRONMENT, *command]

    def prepare(self) -> None:
        """Make the root, or bring its kernel up to date with the archive.

        Raises:
            SuiteError: this fails, and there is no earlier root.
        """
        with _locked(self.root.with_suffix(".lock")):
            complete = self.root / _COMPLETE
            if not complete.exists():
                self._make()
            elif time.time() - complete.stat().st_mtime < _REFRESHED_AFTER:
                return
            try:
                _run(*self.command("apt-get", *_QUIET_APT, "update"))
                self.install(*_TOOLS, *self._packages())
                self._link_within()
            except SuiteError as error:
                if not complete.exists():
                    raise
                print(f"Suite {self.name} is used as it was: {error}", flush=True)
            complete.touch()

    def install(self, *packages: str) -> None:
        """Install packages in the root, if they are missing or outdated.

        Raises:
            SuiteError: the archive does not answer, or lacks a package.
        """
        options = ("install", "-y", "--no-install-recommends")
        _run(*self.command("apt-get", *_QUIET_APT, *options, *packages))

    def _make(self) -> None:
        print(f"Making a root of {self.name}: some minutes, a gigabyte", flush=True)
        base = self.name.removesuffix("-backports")
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        lines = sources(_archives(), codename, self.name)
        listing = self.root.with_suffix(".list")
        listing.write_text("\n".join(lines) + "\n")
        if self.root.exists():
            # safe to remove: mounts in it are only made in private namespaces
            _run("rm", "-rf", "--one-file-system", str(self.root))
        options = ("--mode=root", "--variant=apt", "--dpkgopt=force-unsafe-io")
        _run("mmdebstrap", *options, base, str(self.root), str(listing))

    def _link_within(self) -> None:
        """Make links from modules to headers relative, so that they stay in the root."""
        for link in (self.root / "lib" / "modules").glob("*/*"):
            if link.is_symlink() and link.readlink().is_absolute():
                target = self.root / link.readlink().relative_to("/")
                link.unlink()
                link.symlink_to(os.path.relpath(target, link.parent.resolve()))

    def _packages(self) -> tuple[str, str]:
        """The packages of image and headers, in apt-get's notation."""
        image = self.package
        if "*" in image:
            pattern = (
                image.replace("image", "headers", 1).replace(".", r"\.").replace("*", r"[0-9-]+")
            )
            found = _run(*self.command("apt-cache", "search", "--names-only", f"^{pattern}$"))
            names = [line.split()[0] for line in found.splitlines()]
            if not names:
                raise SuiteError(f"suite {self.name} has no package {image}")
            image = min(names, key=_age).replace("headers", "image", 1)
        target = f"/{self.name}" if self.name.endswith("-backports") else ""
        return f"{image}{target}", f"{image.replace('image', 'headers', 1)}{target}"


def _age(package: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", package)))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make preparations of one root wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
