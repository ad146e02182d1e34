# SPDX-License-Identifier: GPL-2.0
"""The files of recorded messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import yaml

from ipttproto import MINOR, VERSION
from ipttproto.enumerations import DEFINED
from ipttproto.family import ATTRIBUTE_SETS, LIMITS, RECORDS
from ipttproto.layout import fields
from ipttproto.operations import OPERATIONS

DIRECTORY: Final = Path(__file__).parent


@dataclass(frozen=True)
class Answer:
    """A reply or a notification: its bytes behind the headers, and what they mean."""

    command: str
    data: bytes
    parsed: Mapping[str, Any]


@dataclass(frozen=True)
class Exchange:
    """A request and what the module said.

    ``attributes`` is the request as ``build_request`` takes it, ``request`` its bytes behind the
    netlink header. ``errno`` is 0 if it was done.
    """

    command: str
    attributes: Mapping[str, Any]
    dump: bool
    request: bytes
    errno: int
    replies: list[Answer] = field(default_factory=list)
    notifications: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Recording:
    """The messages of a version.

    ``definition`` is what the version defines, as ``definition`` returns it. ``batches`` are
    messages of events behind their headers, ``rows`` the members of the events in each.
    """

    version: str
    definition: Mapping[str, Mapping[str, Any]]
    exchanges: list[Exchange]
    batches: list[bytes]
    rows: list[list[list[Any]]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file."""
        found = yaml.load(path.read_text(), _LOADER)
        found["exchanges"] = [_exchange(**exchange) for exchange in found["exchanges"]]
        return cls(**found)

    def text(self) -> str:
        """The text of the file."""
        head = "# SPDX-License-Identifier: GPL-2.0\n# Recorded by `make golden`.\n"
        return head + yaml.safe_dump(asdict(self), sort_keys=False, width=100)

    def kinds(self) -> list[int]:
        """The kinds of the recorded events, in order of their numbers."""
        names = [member[0] for member in self.definition["records"]["event"]]
        return sorted(row[names.index("kind")] for rows in self.rows for row in rows)


_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _exchange(
    replies: list[dict[str, Any]], notifications: list[dict[str, Any]], **members: Any
) -> Exchange:
    told = [[Answer(**answer) for answer in answers] for answers in (replies, notifications)]
    return Exchange(**members, replies=told[0], notifications=told[1])


def current_version() -> str:
    """The version that this tree defines."""
    return f"{VERSION}.{MINOR}"


def files() -> list[Path]:
    """The files of all versions with the same major number, oldest first."""
    return sorted(DIRECTORY.glob(f"{VERSION}.*.yaml"), key=lambda path: int(path.stem[2:]))


def definition() -> dict[str, dict[str, Any]]:
    """Definitions of this tree: all numbers, types and layouts.

    Mappings may get further keys in later versions, and lists further elements at their end.
    """
    return {
        "enumerations": {
            enumeration.__name__: {member.name: int(member) for member in enumeration}
            for enumeration in DEFINED
        },
        "limits": {name: value for name, (value, _) in LIMITS.items()},
        "records": {
            name: [[f.name, f.offset, f.c_type, f.count] for f in fields(record)]
            for name, (record, _) in RECORDS.items()
        },
        "attributes": {
            space.name: {
                a.name: [a.number, a.nested.name if a.nested else getattr(a.type, "ynl", "")]
                for a in space.attributes
            }
            for space in ATTRIBUTE_SETS
        },
        "operations": {
            operation.command.name: {
                "request": dict.fromkeys(operation.request, True),
                "reply": dict.fromkeys(operation.reply, True),
                "dump": operation.dump,
                "group": operation.group and operation.group.value,
            }
            for operation in OPERATIONS
        },
    }


def plain(value: Any) -> Any:
    """A value with members of enumerations as the numbers that they are."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | bytes | str):
        return value
    return int(value)


def changed(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """Definitions that are gone or others by now, by their paths."""
    if isinstance(before, Mapping):
        for name, value in before.items():
            if name in now:
                yield from changed(value, now[name], f"{where}.{name}")
            else:
                yield f"{where}.{name}"
    elif isinstance(before, list):
        if now[: len(before)] != before:
            yield where
    elif now != before:
        yield where


def missing(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """The attributes that were in an answer and are not there now, by their path."""
    if isinstance(before, Mapping):
        for name, value in before.items():
            if name in now:
                yield from missing(value, now[name], f"{where}.{name}")
            else:
                yield f"{where}.{name}"
    elif isinstance(before, list):
        for then, one in zip(before, now, strict=False):
            yield from missing(then, one, where)
