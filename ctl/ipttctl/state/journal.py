# SPDX-License-Identifier: GPL-2.0
"""The record that ``apply`` keeps of the links it made: all that the kernel does not keep.

It holds a link's name, the files that its programs came from, and the expression of its filter. It
is a file below /run, valid for one life of the module, in which no link id is used twice. The part
about a link's programs is valid as long as the link has these programs, which their ids show.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf.private_dirs import check_private, make_private
from ipttctl.errors import IpttctlError, os_reason
from ipttctl.hooks.hook import HookIdentity
from ipttctl.link.model import Link
from ipttctl.system.host_identity import HostIdentity

RECORD: Final = Path("/run/ipttctl/declared.json")
"""The file of the record."""

#: seconds for which nobody is told that a lock is waited for, and between two attempts to have it
_SOON: Final = 2.0
_INTERVAL: Final = 0.05
_FORMAT: Final = 5
#: bytes of a file of a lock
_NUMBER: Final = 16


@dataclass(frozen=True)
class RecordedLink:
    """A link that apply made, or is about to make.

    ``link`` and ``generation`` are those after the last apply. ``programs`` are kind and text of
    each slot's source (see ``parse_source``). ``digests`` are those of files, ``filter`` is the
    expression, and ``maps``, ``constants``, ``keep_maps`` and ``expected`` (digests by slot) are
    the declared ones. ``ids`` are those of the programs, by slot. ``owner`` is that of the file.

    While a link is about to be made, ``link`` is 0. It is then recognized by ``after``, the highest
    link id before it, by ``pid``, and by ``ids``. ``before`` is what was recorded before a swap
    that may be rolled back. ``undone`` is what apply swapped in last before that, and was rolled
    back.
    """

    name: str
    link: int
    generation: int
    place: HookIdentity
    programs: Mapping[str, Sequence[str]]
    digests: Mapping[str, str] = field(default_factory=dict)
    filter: str | None = None
    maps: Mapping[str, Any] = field(default_factory=dict)
    after: int = 0
    pid: int = 0
    ids: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    keep_maps: Sequence[str] | None = None
    expected: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    before: RecordedLink | None = None
    undone: RecordedLink | None = None

    def is_of(self, link: Link) -> bool:
        """Whether this records the given link, and nobody has adopted it."""
        if not link.persistent:
            return False
        if self.link:
            return self.link == link.id
        return (
            link.id > self.after
            and link.owner_pid == self.pid
            and link.hook.identity() == self.place
            and program_ids(link) == self.ids
        )

    def at(self, link: Link) -> RecordedLink | None:
        """The part of the record that the link's programs are of; None if somebody swapped them.

        The filter may be another one if the generation is.
        """
        for entry in (self, self.before):
            if entry and entry.link == link.id and entry.ids == program_ids(link):
                same = entry.generation == link.generation
                return entry if same else replace(entry, filter=None)
        return None


def program_ids(link: Link) -> dict[str, int]:
    """The ids of a link's programs, by the names of their slots."""
    return {slot.name.lower(): program.id for slot, program in link.programs.items()}


class LockedError(IpttctlError):
    """Another process applies a state, or replaces the module."""


@contextmanager
def locked(
    path: Path, *, wait: bool = True, tell: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Keep other processes from applying; waits for one that does, if it is to ``wait``.

    ``tell`` is called with a sentence before it waits for long.

    Raises:
        LockedError: another process has the lock, and it is not to be waited for.
        IpttctlError: the directory cannot be made.
    """
    try:
        make_private(path.parent)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IpttctlError(f"cannot write below {path.parent}: {os_reason(error)}") from None
    try:
        if wait:
            _wait(lock, tell)
        else:
            _lock(lock)
        yield
    finally:
        os.close(lock)


def _wait(lock: int, tell: Callable[[str], None] | None) -> None:
    """Take a lock, however long another process has it."""
    soon = time.monotonic() + _SOON
    while True:
        try:
            return _lock(lock)
        except LockedError as error:
            if time.monotonic() < soon:
                # flock() knows no time-out
                time.sleep(_INTERVAL)
                continue
            if tell:
                tell(f"{error}; waiting for its end")
            return _lock(lock, wait=True)


def _lock(lock: int, *, wait: bool = False) -> None:
    """Take a lock, and write into its file who has it; raises LockedError if it cannot be had."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        holder = os.pread(lock, _NUMBER, 0).decode(errors="replace").strip()
        who = f"process {holder}" if holder.isdecimal() else "another process"
        raise LockedError(f"{who} applies a state, or replaces the module") from None
    # only a message needs it
    with suppress(OSError):
        os.pwrite(lock, f"{os.getpid()}\n".ljust(_NUMBER).encode(), 0)


@dataclass(frozen=True)
class Record:
    """The recorded links, in the order in which they were made."""

    links: tuple[RecordedLink, ...] = ()

    @classmethod
    def read(cls, path: Path, of: list[str | int] | None = None) -> Self:
        """Read a record; empty if the file is missing, or from another life of the module.

        ``of`` is the life, by default the present one.

        Raises:
            ProgramError: others can write to the file.
        """
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = path.read_bytes()
            check_private(path)
            stored = json.loads(content)
            if stored["of"] == (of or life()):
                return cls(tuple(map(_entry, stored["links"])))
        return cls()

    def write(self, path: Path) -> None:
        """Store the record, whole or not at all.

        Raises:
            IpttctlError: it cannot be stored.
        """
        stored = {"of": life(), "links": [asdict(entry) for entry in self.links]}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            temporary.touch(mode=0o600, exist_ok=False)
            temporary.write_text(json.dumps(stored))
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise IpttctlError(f"cannot write {path}: {os_reason(error)}") from None


def _entry(stored: Mapping[str, Any]) -> RecordedLink:
    earlier = {name: stored.get(name) for name in ("before", "undone")}
    return RecordedLink(
        **{
            **stored,
            "place": tuple(stored["place"]),
            **{name: None if one is None else _entry(one) for name, one in earlier.items()},
        }
    )


def carry_over(path: Path, past: list[str | int], links: Collection[int]) -> None:
    """Have the record of a past life of the module hold for the present one, for some links.

    Links keep their ids and generations when they are restored. Without a record of that life
    nothing happens.

    Raises:
        IpttctlError: it cannot be stored.
    """
    record = Record.read(path, past)
    kept = tuple(entry for entry in record.links if entry.link in links)
    if kept:
        Record(kept).write(path)


def life() -> list[str | int]:
    """The format, and the life of the module that the record belongs to."""
    now = HostIdentity.now()
    return [_FORMAT, now.boot_id, now.module_life or 0]
