# SPDX-License-Identifier: GPL-2.0
"""What ``apply`` remembers of the links that it made, because the kernel does not keep it.

That is a link's name, which files its programs came from, and the expression that its filter was.
A file below /run holds it, for one life of the module, in which no id of a link is used twice. What
is remembered of a link's programs is void once somebody else has swapped them, which the generation
tells.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.errors import IpttctlError, os_reason
from ipttctl.hooks.hook import Identity
from ipttctl.link.model import Link
from ipttctl.system.private_dirs import check_private, make_private

RECORD: Final = Path("/run/ipttctl/declared.json")
"""Where it is kept."""

_FORMAT: Final = 4
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_MODULE: Final = Path("/sys/module/ipttrace")


@dataclass(frozen=True)
class RecordedLink:
    """A link that apply made, or is about to make.

    ``link`` and ``generation`` are what it was when apply left it. ``programs`` are kind and text
    of each slot's source (see ``parse_source``), ``digests`` are of files, ``filter`` is the
    expression, ``maps`` are the declared ones. About to be made, ``link`` is 0; ``after``, the
    highest id there was, ``pid`` and ``ids``, the programs' by slot, tell it from all others.
    """

    name: str
    link: int
    generation: int
    place: Identity
    programs: Mapping[str, Sequence[str]]
    digests: Mapping[str, str] = field(default_factory=dict)
    filter: str | None = None
    maps: Mapping[str, Any] = field(default_factory=dict)
    after: int = 0
    pid: int = 0
    ids: Mapping[str, int] = field(default_factory=dict)

    def is_of(self, link: Link) -> bool:
        """Whether a link is the one: it is there, and nobody adopted it."""
        if not link.persistent:
            return False
        if self.link:
            return self.link == link.id
        return (
            link.id > self.after
            and link.owner_pid == self.pid
            and link.hook.identity() == self.place
            and {s.name.lower(): p.id for s, p in link.programs.items()} == dict(self.ids)
        )

    def knows(self, link: Link) -> bool:
        """Whether what it tells of the programs still holds."""
        return self.link == link.id and self.generation == link.generation


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else applies meanwhile; waits for whoever does.

    Raises:
        IpttctlError: the directory cannot be made.
    """
    try:
        make_private(path.parent)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IpttctlError(f"cannot write below {path.parent}: {os_reason(error)}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True)
class Record:
    """What is remembered, in the order in which it was made."""

    links: tuple[RecordedLink, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a file holds; nothing if it is missing, or of another life of the module.

        Raises:
            ProgramError: others can write to it.
        """
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = path.read_bytes()
            check_private(path)
            stored = json.loads(content)
            if stored["of"] == _life():
                return cls(
                    tuple(
                        RecordedLink(**{**entry, "place": tuple(entry["place"])})
                        for entry in stored["links"]
                    )
                )
        return cls()

    def write(self, path: Path) -> None:
        """Store it, whole or not at all.

        Raises:
            IpttctlError: it cannot be stored.
        """
        stored = {"of": _life(), "links": [asdict(entry) for entry in self.links]}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            temporary.touch(mode=0o600, exist_ok=False)
            temporary.write_text(json.dumps(stored))
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise IpttctlError(f"cannot write {path}: {os_reason(error)}") from None


def _life() -> list[str | int]:
    """What tells this life of the module from others: sysfs never uses an inode number twice."""
    boot, module = "", 0
    with suppress(OSError):
        boot, module = _BOOT.read_text().strip(), _MODULE.stat().st_ino
    return [_FORMAT, boot, module]
