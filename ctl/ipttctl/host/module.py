# SPDX-License-Identifier: GPL-2.0
"""Build, load and unload the kernel module."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.bpf import tools
from ipttctl.bpf.private_dirs import check_private
from ipttctl.errors import (
    IpttctlError,
    LinkGoneError,
    ModuleError,
    ProgramError,
    os_reason,
)
from ipttctl.host import builds
from ipttctl.host.unfinished import require_finished
from ipttctl.link.controller import Controller, require_same_protocol
from ipttctl.link.model import Link, ModuleStatus
from ipttctl.link.wire import require_privilege
from ipttctl.paths import module_directory

NAME: Final = "ipttrace"
"""The module's name in the kernel."""

SOURCE_VARIABLE: Final = "IPTTRACE_SOURCE"
"""Environment variable with the directory of the module's source."""

FILE_VARIABLE: Final = "IPTTRACE_KO"
"""Environment variable with a module file that is built already."""

BUILT: Final = Path("/var/lib/ipttctl")
"""Where `ipttctl module build` builds, in a directory for each kernel release."""

MODULES: Final = Path("/lib/modules")
"""The modules of each kernel release; DKMS installs ours among them."""

_SYSFS: Final = Path("/sys/module")
_SHOWN_OUTPUT: Final = 3
_INSTALLED: Final = re.compile(rf"^((?:.*/)?{NAME}\.ko(?:\.[a-z]+)?):", re.MULTILINE)


@dataclass(frozen=True)
class ModuleState:
    """The present state of the module.

    ``status`` and ``links`` are None if the module does not answer. ``problem`` says why not, or
    that the module speaks another protocol.
    """

    loaded: bool
    references: int = 0
    status: ModuleStatus | None = None
    links: tuple[Link, ...] | None = None
    problem: IpttctlError | None = None


def running_release() -> str:
    """The release of the running kernel, as `uname -r` prints it."""
    return os.uname().release


def is_loaded() -> bool:
    """Whether the module is loaded."""
    return (_SYSFS / NAME).is_dir()


def state() -> ModuleState:
    """Get the present state of the module.

    Raises:
        PrivilegeError: the caller may not ask the module.
    """
    require_privilege()
    if not is_loaded():
        return ModuleState(loaded=False)
    references = 0
    with suppress(OSError, ValueError):
        references = int((_SYSFS / NAME / "refcnt").read_text())
    try:
        with Controller(check=False) as controller:
            status = controller.status()
            try:
                require_same_protocol(status)
            except ModuleError as problem:
                return ModuleState(True, references, status, problem=problem)
            return ModuleState(True, references, status, tuple(controller.links()))
    except IpttctlError as problem:
        return ModuleState(True, references, problem=problem)


def source_directory() -> Path:
    """The directory of the module's source: the environment's, or the one installed with us.

    Raises:
        ModuleError: there is no source.
    """
    given = os.environ.get(SOURCE_VARIABLE)
    path = Path(given) if given else module_directory()
    if not (path / "Kbuild").is_file() and not (path / "Makefile").is_file():
        raise ModuleError(
            f"there is no source of the module in {path}", f"set {SOURCE_VARIABLE} to its directory"
        )
    return path


def own_file(release: str, directory: Path) -> Path:
    """The file that `ipttctl module build` makes for a release, below ``directory`` (as BUILT)."""
    return directory / release / f"{NAME}.ko"


def installed_file(release: str, modules: Path) -> Path | None:
    """The installed module for a release, below ``modules`` (as MODULES), or None.

    DKMS installs it there, and the kernel's tools list it.
    """
    try:
        listed = _INSTALLED.search((modules / release / "modules.dep").read_text())
    except OSError:
        return None
    return modules / release / listed[1] if listed else None


def built_file(release: str) -> Path:
    """The module's file for a kernel release; its future place if it is not built yet.

    It is the environment's, the one built by hand, or the installed one, in this order.
    """
    given = os.environ.get(FILE_VARIABLE)
    if given:
        return Path(given)
    own = own_file(release, BUILT)
    return own if own.exists() else installed_file(release, MODULES) or own


def build(release: str, modules: Path = MODULES) -> Path:
    """Build the module for a kernel release from a copy of its source; returns the file.

    Raises:
        ModuleError: headers, compiler or source are missing, or the module does not build.
    """
    headers = modules / release / "build"
    if not (headers / "Makefile").exists():
        raise ModuleError(
            f"there are no headers of kernel {release}",
            f"run `apt install linux-headers-{release}`",
        )
    source = source_directory()
    directory = BUILT / release
    try:
        _copy(source, directory)
    except OSError as error:
        raise ModuleError(f"cannot copy {source} to {directory}: {os_reason(error)}") from None
    command = ["make", "-s", "-C", str(headers), f"M={directory}", "modules"]
    result = _run(command, "apt install make gcc")
    if result.returncode:
        raise ModuleError(f"the module does not build for {release}: {_excerpt(result.stderr)}")
    return directory / f"{NAME}.ko"


def _copy(source: Path, directory: Path) -> None:
    """Copy a directory's content over that of another, which is made if it is missing.

    Raises:
        OSError: a file or directory cannot be copied.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for place in sorted(source.rglob("*")):
        copy = directory / place.relative_to(source)
        if place.is_dir():
            copy.mkdir(exist_ok=True)
        else:
            shutil.copy2(place, copy)


def load(release: str | None = None) -> Path:
    """Load the module for the running kernel, and check its protocol; returns the file.

    A copy of the file is kept, for an upgrade that goes back to it.

    Raises:
        PrivilegeError: the caller may not load modules.
        ModuleError: the module is loaded already, not built, built for another kernel or of another
            build; somebody else can have written the file; the kernel refuses it; or an upgrade
            stands unfinished.
    """
    require_privilege()
    require_finished()
    if is_loaded():
        raise ModuleError("the ipttrace module is loaded already", "see `ipttctl module status`")
    path = loadable(release)
    insert(path)
    with Controller(), suppress(ModuleError):  # upgrade says so when there is no copy
        builds.keep(path)
    return path


def loadable(release: str | None = None) -> Path:
    """The file that ``load`` takes, checked.

    Raises:
        ModuleError: there is none, it is built for another kernel, or somebody else can have
            written it.
    """
    release = release or running_release()
    path = built_file(release)
    if not path.is_file():
        remedy = (
            f"{FILE_VARIABLE} names a file that does not exist"
            if FILE_VARIABLE in os.environ
            else "run `ipttctl module build`"
        )
        raise ModuleError(f"there is no module for kernel {release} at {path}", remedy)
    try:
        check_private(path, follow=True)
    except ProgramError as error:
        raise ModuleError(error.problem, error.remedy) from None
    made_for = built_for(path)
    if made_for != release:
        raise ModuleError(
            f"{path} is built for kernel {made_for}, this is {release}",
            "run `ipttctl module build`",
        )
    return path


def insert(path: Path, *parameters: str) -> None:
    """Load a module file with parameters of the module.

    Raises:
        ModuleError: the kernel refuses it.
    """
    result = _run(["insmod", str(path), *parameters], "apt install kmod")
    if result.returncode:
        raise ModuleError(
            f"the kernel does not take {path}: {_excerpt(result.stderr)}", "see `dmesg`"
        )


def remove() -> None:
    """Unload the module, which has no links.

    Raises:
        ModuleError: something holds it.
    """
    result = _run(["rmmod", NAME], "apt install kmod")
    if result.returncode:
        raise ModuleError(f"the kernel keeps the ipttrace module: {_excerpt(result.stderr)}")


def keep() -> Path:
    """Keep a copy of the file of the module that is loaded; returns the copy.

    Raises:
        PrivilegeError: the caller may not ask the module.
        ModuleError: the module is not loaded, or its file is nowhere.
    """
    require_privilege()
    build = builds.running()
    if build is None:
        raise ModuleError("the ipttrace module is not loaded", "run `ipttctl module load`")
    found = running_file(build)
    if found is None:
        raise ModuleError(
            "the file of the ipttrace module that is loaded is nowhere",
            "it was replaced or removed after it was loaded",
        )
    return builds.keep(found)


def running_file(build: bytes) -> Path | None:
    """The file of a build: the kept copy, or one that could be loaded; None if there is none."""
    release = running_release()
    candidates = [built_file(release), own_file(release, BUILT)]
    if installed := installed_file(release, MODULES):
        candidates.append(installed)
    return builds.find(build, candidates)


def field_of(path: Path, name: str) -> list[str]:
    """The values of a field of a module file, as modinfo has them; empty without any."""
    result = _run(["modinfo", "-F", name, str(path)], "apt install kmod")
    return result.stdout.splitlines() if result.returncode == 0 else []


def built_for(path: Path) -> str:
    """The kernel release that a module file is built for.

    Raises:
        ModuleError: it is not a kernel module.
    """
    result = _run(["modinfo", "-F", "vermagic", str(path)], "apt install kmod")
    words = result.stdout.split()
    if result.returncode or not words:
        raise ModuleError(f"{path} is not a kernel module: {_excerpt(result.stderr)}")
    return words[0]


def unload(*, force: bool = False) -> list[Link]:
    """Unload the module; with ``force`` detach its links first. Returns the detached links.

    Raises:
        PrivilegeError: the caller may not unload modules.
        ModuleError: it is not loaded, links or something else holds it, or, without ``force``, an
            upgrade stands unfinished.
    """
    require_privilege()
    if not is_loaded():
        raise ModuleError("the ipttrace module is not loaded")
    if not force:
        require_finished()
    # It must be possible to unload a module with another protocol too.
    with Controller(check=False) as controller:
        links = controller.links()
        if links and not force:
            held = ", ".join(_holder(link) for link in links)
            raise ModuleError(
                f"the ipttrace module is in use by {held}",
                "run `ipttctl detach --all` or `ipttctl module unload --force`",
            )
        detached = []
        for link in links:
            with suppress(LinkGoneError):
                detached.append(controller.detach(link.id, force=link.exclusive))
    remove()
    return detached


def _holder(link: Link) -> str:
    if link.persistent:
        return f"link {link.id} (persistent)"
    return f"link {link.id} (of {link.owner_comm}, pid {link.owner_pid})"


def _run(command: Sequence[str], remedy: str) -> subprocess.CompletedProcess[str]:
    tool = tools.find(command[0])
    if tool is None:
        raise ModuleError(f"there is no {command[0]} here", f"run `{remedy}`")
    return tools.run([tool, *command[1:]])


def _excerpt(output: str) -> str:
    """The essence of a tool's error messages, on one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines
    return " / ".join(errors[:_SHOWN_OUTPUT]) or "it does not say why"
