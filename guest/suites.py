# SPDX-License-Identifier: GPL-2.0
"""Kernels of other suites than this machine's, each suite in a root file system of its own.

A root below ``.build/suites`` holds the suite's kernel, its headers and its compiler. mmdebstrap
makes it from the archives that this machine's apt uses, with another suite's name in them; its apt
has lists, cache and state of its own. The machine's sources and packages stay as they are.
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
"""Seconds that an archive is taken to be as it was."""
_TOOLS: Final = ("gcc", "make", "kmod", "libc6-dev")
_QUIET_APT: Final = ("-qq", "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-unsafe-io")
# no initramfs for a kernel that boots without one
_ENVIRONMENT: Final = ("env", "INITRD=No", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")


class SuiteError(KernelMissingError):
    """A suite cannot be had: its archive does not answer, or lacks the package."""


@dataclass(frozen=True)
class Archive:
    """An archive that this machine's apt takes packages from."""

    uri: str
    release: str
    """The suite, by its code name, as in ``bookworm-updates``."""
    keyring: str = ""


def sources(archives: list[Archive], codename: str, suite: str) -> list[str]:
    """Lines of a sources.list for a suite: its release, updates and security, and itself.

    Raises:
        SuiteError: the machine takes nothing from an archive of its own release.
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
    """What apt is configured to use here."""
    fields = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)"
    listed = _run("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
    found = []
    for line in listed.splitlines():
        uri, release, component, entry = line.split("|")
        if component == "main":
            found.append(Archive(uri, release, _keyring(Path(entry.rpartition(":")[0]))))
    return list(dict.fromkeys(found))


def _keyring(source: Path) -> str:
    """The keyring that a file of sources names."""
    named = re.search(r"signed-by\s*[:=]\s*(/[^\s\],]+)", source.read_text(), re.IGNORECASE)
    return named.group(1) if named else ""


def _run(*command: str) -> str:
    """The output of a command.

    Raises:
        SuiteError: it failed; with the last thing it said.
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
    """As in ``trixie-backports``."""
    package: str
    """The package of the kernel's image; with a ``*`` in it the oldest one that matches."""

    @property
    def root(self) -> Path:
        """Where it lies."""
        return DIRECTORY / self.name

    def kernel(self, name: str) -> Kernel:
        """The kernel in it, called by a name.

        Raises:
            KernelMissingError: the root is not made.
        """
        found = kernels.installed(self.root / "boot", self.root / "lib" / "modules")
        if not found or not (self.root / _COMPLETE).exists():
            raise KernelMissingError(
                f"kernel {name} of suite {self.name} is not in {DIRECTORY}; run: make suites"
            )
        latest = found[-1]
        return Kernel(name, latest.release, latest.image, latest.headers)

    def command(self, *command: str, shared: Path | None = None) -> list[str]:
        """A command line that runs a command in the root, with a directory of the host in it."""
        mounts = [f"mount -t proc proc {self.root}/proc"]
        if shared is not None:
            mounts.append(f"mkdir -p {self.root}{shared}")
            mounts.append(f"mount --bind {shared} {self.root}{shared}")
        script = "; ".join(["set -e", *mounts, f'exec chroot {self.root} "$@"'])
        return ["unshare", "--mount", "bash", "-c", script, "bash", *_ENVIRONMENT, *command]

    def prepare(self) -> None:
        """Make the root, or bring its kernel up to date with the archive.

        Raises:
            SuiteError: that cannot be done, and there is none from before.
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
        """Install packages in the root, where they are missing or outdated.

        Raises:
            SuiteError: the archive does not answer, or lacks one.
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
            # half made: nothing is mounted in it, mounts are in namespaces of their own
            _run("rm", "-rf", "--one-file-system", str(self.root))
        options = ("--mode=root", "--variant=apt", "--dpkgopt=force-unsafe-io")
        _run("mmdebstrap", *options, base, str(self.root), str(listing))

    def _link_within(self) -> None:
        """Let links from modules to headers stay in the root, from wherever they are followed."""
        for link in (self.root / "lib" / "modules").glob("*/*"):
            if link.is_symlink() and link.readlink().is_absolute():
                target = self.root / link.readlink().relative_to("/")
                link.unlink()
                link.symlink_to(os.path.relpath(target, link.parent.resolve()))

    def _packages(self) -> tuple[str, str]:
        """The packages of image and headers, as apt-get takes them."""
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
    """Two preparations of one root wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
