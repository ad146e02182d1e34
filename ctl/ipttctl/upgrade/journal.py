# SPDX-License-Identifier: GPL-2.0
"""The journal of an upgrade: all that the links of the module before are made from again.

It is written before anything changes, and again when the last counters are known. The programs are
pinned besides, and copies of both module files lie next to it. So whoever finds it can go on.
"""

from __future__ import annotations

import enum
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf import syscalls
from ipttctl.bpf.private_dirs import check_private, make_private
from ipttctl.errors import ModuleError, ProgramError, os_reason
from ipttctl.host.unfinished import JOURNAL
from ipttctl.link.restore import LinkRecord, Numbers

PINS: Final = Path("/sys/fs/bpf/ipttctl-upgrade")
"""Directory of a BPF file system where the programs are pinned meanwhile."""

_FORMAT: Final = 1
_BYTES: Final = "bytes"


class Phase(enum.StrEnum):
    """The module that is to be loaded in the end."""

    FORWARD = "forward"
    BACK = "back"


@dataclass(frozen=True)
class ModuleFile:
    """A module: its build id in hex, its version, and the copy of its file; empty if there is none.

    ``origin`` is where the file was copied from.
    """

    build: str
    version: str
    copy: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Journal:
    """An upgrade under way.

    ``life`` is that of the module before (``state.journal``). ``parked`` is the time since boot in
    seconds right before links were parked. ``counted`` says that they are parked, and that their
    counters are the last ones. ``records`` are the links to restore, in the order of their ids, and
    ``left_out`` sentences on the others. ``failure`` says why it goes back.
    """

    boot: str
    life: list[str | int]
    old: ModuleFile
    new: ModuleFile
    numbers: Numbers
    records: tuple[LinkRecord, ...]
    left_out: tuple[str, ...] = ()
    phase: Phase = Phase.FORWARD
    parked: float = 0.0
    counted: bool = False
    failure: str = ""

    @classmethod
    def read(cls, path: Path = JOURNAL) -> Self | None:
        """Read the journal; None if there is none.

        Raises:
            ModuleError: it cannot be read, others can have written it, or it is of another format.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ModuleError(f"cannot read {path}: {os_reason(error)}") from None
        try:
            check_private(path)
            stored = json.loads(content, object_hook=_decoded)
            if stored.pop("format") != _FORMAT:
                raise ModuleError(
                    f"{path} was written by another version of ipttctl",
                    f"complete the upgrade with that one, or remove {path.parent}",
                )
            return cls(
                **{
                    **stored,
                    "old": ModuleFile(**stored["old"]),
                    "new": ModuleFile(**stored["new"]),
                    "numbers": Numbers(**stored["numbers"]),
                    "records": tuple(
                        LinkRecord(attributes, tuple(history))
                        for attributes, history in stored["records"]
                    ),
                    "left_out": tuple(stored["left_out"]),
                    "phase": Phase(stored["phase"]),
                }
            )
        except ProgramError as error:
            raise ModuleError(error.problem, error.remedy) from None
        except (ValueError, KeyError, TypeError) as error:
            raise ModuleError(f"{path} makes no sense: {error}", f"remove {path.parent}") from None

    def write(self, path: Path = JOURNAL) -> None:
        """Store the journal, whole or not at all, on the disk.

        Raises:
            ModuleError: it cannot be stored.
        """
        stored = {
            **vars(self),
            "format": _FORMAT,
            "old": vars(self.old),
            "new": vars(self.new),
            "numbers": vars(self.numbers),
            "records": [[record.attributes, record.history] for record in self.records],
        }
        temporary = path.with_suffix(".new")
        try:
            make_private(path.parent)
            with temporary.open("w") as file:
                json.dump(stored, file, default=_encoded)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync(path.parent)
        except ProgramError as error:
            raise ModuleError(error.problem, error.remedy) from None
        except OSError as error:
            raise ModuleError(f"cannot write {path}: {os_reason(error)}") from None

    def with_counters(self, counters: Mapping[int, Mapping[str, Any]]) -> Self:
        """The journal with the last counters of parked links, as attributes by id."""
        return replace(
            self,
            counted=True,
            records=tuple(
                record.counted(counters[record.link.id]) if record.link.id in counters else record
                for record in self.records
            ),
        )


def discard(path: Path = JOURNAL, pins: Path = PINS) -> None:
    """Remove journal, copies and pins: the links are restored, or were never parked.

    Raises:
        ModuleError: they cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
        for directory in (pins, path.parent):
            if directory.exists():
                shutil.rmtree(directory)
    except OSError as error:
        raise ModuleError(f"cannot remove {path.parent}: {os_reason(error)}") from None


def pin(records: Iterable[LinkRecord], pins: Path = PINS) -> None:
    """Pin all programs of the links, so that they stay while no module holds them.

    Raises:
        ProgramError: they cannot be pinned.
    """
    if not syscalls.on_bpffs(pins.parent):
        raise ProgramError(
            f"no BPF file system is mounted at {pins.parent}: nothing would keep the programs",
            f"mount -t bpf -o mode=0700 bpf {pins.parent}",
        )
    try:
        make_private(pins)
    except OSError as error:
        raise ProgramError(f"cannot make {pins}: {os_reason(error)}") from None
    wanted = {program.id for one in records for program in one.link.programs.values()}
    for identifier in wanted:
        place = pins / str(identifier)
        if place.exists():
            continue
        fd = syscalls.program_by_id(identifier)
        try:
            syscalls.pin(fd, place)
        finally:
            os.close(fd)


def since_boot() -> float:
    """Seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _encoded(value: object) -> Any:
    if isinstance(value, bytes):
        return {_BYTES: value.hex()}
    raise TypeError(f"no such value: {value!r}")


def _decoded(value: dict[str, Any]) -> Any:
    if value.keys() == {_BYTES}:
        with suppress(TypeError):
            return bytes.fromhex(value[_BYTES])
    return value
