# SPDX-License-Identifier: GPL-2.0
"""The installed files, and their installation into a directory.

Python code is in its own virtual environment, PREFIX/lib/ipttctl. It holds our package and those
packages of ``requirements.txt`` whose versions in Linux distributions are too old. Everything else
comes from the system's Python, which the environment sees.
"""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Final

from installer import completion, manual

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
BUNDLED: Final = ("annotated-doc", "pyroute2", "typer")
"""Python distributions that are copied from the installing environment."""

PRIVATE: Final = PurePosixPath("lib/ipttctl")
"""The directory below the prefix that belongs to us alone."""

_CODE: Final = PRIVATE / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
_PROGRAM: Final = PurePosixPath("sbin/ipttctl")
_MANUAL: Final = PurePosixPath(f"share/man/man{manual.SECTION}")
_COMPLETION: Final = {
    "bash": PurePosixPath("share/bash-completion/completions/ipttctl"),
    "zsh": PurePosixPath("share/zsh/site-functions/_ipttctl"),
    "fish": PurePosixPath("share/fish/vendor_completions.d/ipttctl.fish"),
}
_SPEC: Final = PurePosixPath("share/ynl/specs/ipttrace.yaml")
"""The protocol for the kernel's own netlink client, where it looks for specs."""

_ZSH_OF_DEBIAN: Final = PurePosixPath("share/zsh/vendor-completions/_ipttctl")
"""Directory of zsh completions in Debian packages, and only there."""

_UNITS: Final = PurePosixPath("lib/systemd/system")
"""Directory of systemd's units; it looks there below /usr and /usr/local."""

UNITS: Final = ("ipttctl-agent.service", "ipttctl-apply@.service", "ipttctl-upgrade.service")
"""Units for the agent, for ``apply --watch``, and for an upgrade that a reboot has interrupted."""

_ENTRY: Final = """\
#!{python} -I
# SPDX-License-Identifier: GPL-2.0
from ipttctl.__main__ import main

main()
"""
_ENVIRONMENT: Final = """\
home = {home}
include-system-site-packages = true
version = {version}
"""


@dataclass(frozen=True)
class Item:
    """A file, or a symbolic link if it has a target."""

    content: bytes = b""
    executable: bool = False
    target: str = ""

    def is_at(self, path: Path) -> bool:
        """Whether the file at a path is the same as this."""
        if self.target:
            return path.is_symlink() and str(path.readlink()) == self.target
        if path.is_symlink() or not path.is_file():
            return False
        executable = bool(path.stat().st_mode & 0o111)
        return executable == self.executable and path.read_bytes() == self.content

    def put(self, path: Path) -> None:
        """Install the item in one atomic step: a process sees the old file or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        if self.target:
            temporary.symlink_to(self.target)
        else:
            temporary.write_bytes(self.content)
            temporary.chmod(0o755 if self.executable else 0o644)
        temporary.rename(path)


def items(wheel: Path, prefix: PurePosixPath, *, debian: bool) -> dict[PurePosixPath, Item]:
    """All installed items, by path below the prefix."""
    python = Path(sys.base_prefix, "bin/python3")
    version = ".".join(map(str, sys.version_info[:3]))
    found = {
        PRIVATE / "pyvenv.cfg": _text(_ENVIRONMENT.format(home=python.parent, version=version)),
        PRIVATE / "bin/python3": Item(target=str(python)),
        PRIVATE / "bin/python": Item(target="python3"),
        _PROGRAM: Item(
            _ENTRY.format(python=prefix / PRIVATE / "bin/python3").encode(), executable=True
        ),
    }
    found |= {_CODE / name: item for name, item in _of_wheel(wheel)}
    found[_SPEC] = found[_CODE / "ipttctl/sources/ipttrace.yaml"]
    for distribution in BUNDLED:
        found |= {_CODE / name: item for name, item in _of_distribution(distribution)}
    found |= {_UNITS / name: _text(unit(name, prefix)) for name in UNITS}
    for name, page in manual.pages().items():
        found[_MANUAL / name] = _text(page)
    for shell, path in _COMPLETION.items():
        place = _ZSH_OF_DEBIAN if debian and shell == "zsh" else path
        found[place] = _text(completion.script(shell))
    return found


def unit(name: str, prefix: PurePosixPath) -> str:
    """A unit of systemd, for a program below a prefix."""
    text = Path(__file__).with_name(name).read_text()
    return text.replace("{program}", str(prefix / _PROGRAM))


def install(wanted: Mapping[PurePosixPath, Item], directory: Path) -> int:
    """Bring our files below a directory to the wanted state; returns how many changed.

    Files that are no longer wanted are removed. Compiled Python stays beside its source.
    """
    changed = 0
    for name, item in wanted.items():
        if not item.is_at(directory / name):
            item.put(directory / name)
            changed += 1
    for path in _ours(directory):
        name = PurePosixPath(path.relative_to(directory))
        compiled = name.parent.name == "__pycache__"
        source = name.parents[1] / f"{name.name.split('.')[0]}.py" if compiled else name
        if source not in wanted:
            path.unlink()
            changed += 1
    _remove_empty(directory / PRIVATE)
    return changed


def uninstall(directory: Path) -> int:
    """Remove all our files below a directory; returns how many there were."""
    ours = list(_ours(directory))
    for path in ours:
        path.unlink()
    shutil.rmtree(directory / PRIVATE, ignore_errors=True)
    return len(ours)


def _ours(directory: Path) -> Iterator[Path]:
    """All files below a directory that any version of this installer put there."""
    private = directory / PRIVATE
    yield from (path for path in private.rglob("*") if path.is_symlink() or not path.is_dir())
    yield from sorted((directory / _MANUAL).glob(f"{manual.NAME}*.{manual.SECTION}"))
    units = (_UNITS / name for name in UNITS)
    for name in (_PROGRAM, _SPEC, *units, *_COMPLETION.values(), _ZSH_OF_DEBIAN):
        if (directory / name).is_file():
            yield directory / name


def _remove_empty(directory: Path) -> None:
    below = [path for path in directory.rglob("*") if path.is_dir() and not path.is_symlink()]
    for path in sorted(below, reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def _text(text: str) -> Item:
    return Item(text.encode())


def _of_wheel(wheel: Path) -> Iterator[tuple[str, Item]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith("/"):
                yield name, Item(archive.read(name))


def _of_distribution(name: str) -> Iterator[tuple[str, Item]]:
    """The files of an installed Python distribution, with its licence, without its programs.

    Raises:
        metadata.PackageNotFoundError: the distribution is not installed.
        ValueError: it has machine code, which another Python could not load.
    """
    for file in metadata.distribution(name).files or ():
        place = str(file)
        if place.startswith("..") or "__pycache__" in file.parts:
            continue
        if re.search(r"\.so(\.|$)", file.name):
            raise ValueError(f"{name} is not pure Python: {place}")
        if file.name not in {"INSTALLER", "REQUESTED", "direct_url.json"}:
            yield place, Item(Path(str(file.locate())).read_bytes())
