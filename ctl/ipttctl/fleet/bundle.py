# SPDX-License-Identifier: GPL-2.0
"""A declared file as other hosts can have it: links that name objects by digest, and the objects.

Sources are compiled here, with clang. What means something on one host only, such as a descriptor,
a pinned program or a process, is refused.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from ipttctl.errors import ProgramError, UsageError, os_reason
from ipttctl.fleet.config import LinkMode
from ipttctl.fleet.explain import explain
from ipttctl.fleet.filter_words import check_filter
from ipttctl.fleet.grants import Grant, Statement, sign
from ipttctl.fleet.requests import Declared, check_mode
from ipttctl.hooks import HookOptions
from ipttctl.link.names import LabelOptions
from ipttctl.programs.cflags import cflags
from ipttctl.programs.options import ProgramOptions
from ipttctl.programs.sources import FromObject, FromSource, ProgramSource
from ipttctl.state.file import DeclaredFile
from ipttctl.state.option_files import Options
from ipttctl.system.inherited import Inherited

_KEYS: Final = ("hook", "mode", "netns", "filter", "label", "object", "source")
_COMPILING: Final = 120
_GROUP_AND_OTHERS: Final = 0o077


@dataclass(frozen=True)
class Bundle:
    """Links by name, and the objects that they need by digest."""

    links: Mapping[str, Declared]
    objects: Mapping[str, bytes]

    def request(self) -> dict[str, Any]:
        """The links as a request has them."""
        found: dict[str, Any] = msgspec.to_builtins(dict(self.links))
        return found


def read_bundle(file: str) -> Bundle:
    """Read a declared file, as ``ipttctl apply`` takes it, and compile its sources.

    Raises:
        UsageError: something in it is not valid, or not for other hosts.
        ProgramError: a program is missing, or does not compile.
    """
    declared = DeclaredFile.read(file, Inherited(frozenset()))
    files: dict[Path, tuple[str, bytes]] = {}
    links = {
        str(name): _link(str(name), entry, declared.directory, files)
        for name, entry in declared.links.items()
    }
    return Bundle(links, dict(files.values()))


@dataclass(frozen=True)
class Signer:
    """Makes grants for single hosts, which expire soon; without a seed it makes none."""

    seed: bytes | None
    seconds: float

    @classmethod
    def read(cls, file: str | None, seconds: float) -> Signer:
        """Take the seed of an nkey from a file that nobody else can read.

        Raises:
            UsageError: it cannot be read, or others can read it.
        """
        if file is None:
            return cls(None, seconds)
        try:
            mode = Path(file).stat().st_mode
            seed = Path(file).read_bytes().strip()
        except OSError as error:
            raise UsageError(f"--sign: cannot read {file}: {os_reason(error)}") from None
        if mode & _GROUP_AND_OTHERS:
            raise UsageError(
                f"--sign: others than its owner may read {file}", f"run: chmod 600 {file}"
            )
        signer = cls(seed, seconds)
        try:
            sign(_statement("sha256:" + "0" * 64, "nf:inet4/input", "host", 0), seed)
        # nkeys has an error for each way in which a seed can be none
        except Exception:
            raise UsageError(f"--sign: {file} has no seed of an nkey") from None
        return signer

    def grants(self, host: str, bundle: Bundle) -> list[Grant]:
        """Grants for a host, for each object at each of its hooks, in the mode of the link."""
        if self.seed is None:
            return []
        wanted = {
            (program.digest, link.hook, link.mode)
            for link in bundle.links.values()
            for program in link.programs.values()
        }
        until = int(time.time() + self.seconds)
        return [
            sign(_statement(digest, hook, host, until, mode), self.seed)
            for digest, hook, mode in sorted(wanted)
        ]


def _statement(
    digest: str, hook: str, host: str, expires: int, mode: LinkMode = "observe"
) -> Statement:
    return Statement(digest=digest, hook=hook, hosts=[host], expires=expires, mode=mode)


def _link(name: str, entry: Any, directory: Path, files: dict[Path, tuple[str, bytes]]) -> Declared:
    called = f"link {name}"
    given = Options(called, entry, "hook: HOOK")
    for key in entry:
        if key not in _KEYS:
            raise UsageError(
                f"{called}: {key} cannot be declared for other hosts",
                f"there is: {', '.join(_KEYS)}",
            )
    where = given.group(HookOptions)
    if where.mode is not None:
        check_mode(name, where.hook)
    options = given.group(ProgramOptions)
    labels = given.group(LabelOptions).labels()
    given.finish()
    choice = options.choice(Inherited(frozenset())).relative_to(directory)
    programs = {
        slot.name.lower(): _program(called, source, files)
        for slot, source in choice.sources.items()
    }
    try:
        check_filter(choice.filter or "")
        found = {"hook": entry.get("hook"), "netns": entry.get("netns"), "programs": programs}
        mode = where.mode and where.mode.value
        optional = {"mode": mode, "filter": choice.filter, "label": labels}
        found |= {key: value for key, value in optional.items() if value}
        return msgspec.convert(found, Declared)
    except msgspec.ValidationError as error:
        raise UsageError(f"{called}: {explain(error, Declared, found)}") from None
    except UsageError as error:
        raise UsageError(f"{called}: {error.problem}", error.remedy) from None


def _program(
    called: str, source: ProgramSource, files: dict[Path, tuple[str, bytes]]
) -> dict[str, str]:
    match source:
        case FromObject(file, function) | FromSource(file, function):
            path = Path(file)
        case _:
            raise UsageError(
                f"{called}: only programs of files can be declared for other hosts",
                "give object or source",
            )
    if path not in files:
        try:
            data = path.read_bytes() if isinstance(source, FromObject) else _compiled(path)
        except OSError as error:
            raise ProgramError(f"cannot read {path}: {os_reason(error)}") from None
        files[path] = f"sha256:{hashlib.sha256(data).hexdigest()}", data
    return {"digest": files[path][0], "function": function}


def _compiled(source: Path) -> bytes:
    """The object of a source; the same one each time, wherever the source is."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "program.o"
        command = ["clang", *cflags(), "-fdebug-compilation-dir=.", "-c", source.name]
        try:
            done = subprocess.run(
                [*command, "-o", str(target)],
                cwd=source.parent,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMPILING,
                check=False,
            )
        except FileNotFoundError:
            raise ProgramError("clang is not installed", "install it, or give an object") from None
        except subprocess.TimeoutExpired:
            raise ProgramError(f"compiling {source} takes more than {_COMPILING} s") from None
        if done.returncode:
            reason = next(iter(done.stderr.splitlines()), f"clang ends with {done.returncode}")
            raise ProgramError(f"{source} does not compile: {reason}")
        return target.read_bytes()
