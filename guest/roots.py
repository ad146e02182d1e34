# SPDX-License-Identifier: GPL-2.0
"""Root file systems of Debian suites, below ``.build``.

mmdebstrap makes a root from the archives of this machine's apt, with the suite's name. Its apt has
its own lists, cache and state. The machine's own sources and packages do not change.
"""

from __future__ import annotations

import fcntl
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guest.errors import KernelMissingError

BUILD: Final = Path(__file__).resolve().parents[1] / ".build"
COMPLETE: Final = ".complete"
"""The file in a root that says when it was last brought up to date."""
_REFRESHED_AFTER: Final = 12 * 3600
"""Seconds for which an archive is assumed to be unchanged."""
_QUIET_APT: Final = ("-qq", "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-unsafe-io")
# no initramfs: kernels boot without one
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


def this_suite() -> str:
    """The code name of this machine's own suite."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _archives() -> list[Archive]:
    """The archives that this machine's apt is configured to use."""
    fields = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)"
    listed = run("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
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


def run(*command: str) -> str:
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
class Root:
    """The root file system of a suite in a directory."""

    path: Path
    suite: str

    @property
    def complete(self) -> bool:
        """Whether everything was installed once."""
        return (self.path / COMPLETE).exists()

    def command(self, *command: str, shared: Path | None = None) -> list[str]:
        """A command line that runs a command in the root, with a host directory mounted in it."""
        mounts = [f"mount -t proc proc {self.path}/proc"]
        if shared is not None:
            mounts.append(f"mkdir -p {self.path}{shared}")
            mounts.append(f"mount --bind {shared} {self.path}{shared}")
        script = "; ".join(["set -e", *mounts, f'exec chroot {self.path} "$@"'])
        return ["unshare", "--mount", "bash", "-c", script, "bash", *_ENVIRONMENT, *command]

    def prepare(self, announcement: str, install: Callable[[], None], contents: str = "") -> None:
        """Make the root, or bring it up to date with the archive if that was long ago.

        ``install`` installs what it is for, which ``contents`` names if that may change;
        ``announcement`` says that it takes long.

        Raises:
            SuiteError: this fails, and there is no earlier root.
        """
        with _locked(self.path.with_suffix(".lock")):
            complete = self.path / COMPLETE
            if not complete.exists():
                print(announcement, flush=True)
                self._make()
            elif self._is_fresh(contents):
                return
            try:
                run(*self.command("apt-get", *_QUIET_APT, "update"))
                install()
                complete.write_text(contents)
            except SuiteError as error:
                if not complete.exists():
                    raise
                print(f"The root of {self.suite} is used as it was: {error}", flush=True)
                complete.touch()

    def _is_fresh(self, contents: str) -> bool:
        complete = self.path / COMPLETE
        age = time.time() - complete.stat().st_mtime
        return age < _REFRESHED_AFTER and complete.read_text() == contents

    def install(self, *packages: str) -> None:
        """Install packages in the root, if they are missing or outdated.

        Raises:
            SuiteError: the archive does not answer, or lacks a package.
        """
        options = ("install", "-y", "--no-install-recommends")
        run(*self.command("apt-get", *_QUIET_APT, *options, *packages))

    def _make(self) -> None:
        lines = sources(_archives(), this_suite(), self.suite)
        listing = self.path.with_suffix(".list")
        listing.write_text("\n".join(lines) + "\n")
        if self.path.exists():
            # safe to remove: mounts in it are only made in private namespaces
            run("rm", "-rf", "--one-file-system", str(self.path))
        options = ("--mode=root", "--variant=apt", "--dpkgopt=force-unsafe-io")
        base = self.suite.removesuffix("-backports")
        run("mmdebstrap", *options, base, str(self.path), str(listing))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make preparations of one root wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
