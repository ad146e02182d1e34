# SPDX-License-Identifier: GPL-2.0
"""Command lines that make no sense, or that run with unusual standard descriptors.

They are generated from typer's description of the commands, so that new commands and options are
covered too. ``cases`` makes them. A case passes if it ends in time, with a documented status, and
says in one line what was wrong.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from installer import manual
from ipttctl.cli.exit_codes import EXIT_CODES

_T = TypeVar("_T")

UNDECODABLE: Final = "\udcff\udcfe"
"""Bytes that are not UTF-8, in Python's form for arguments."""

WORDS: Final = (
    "",
    " ",
    "x",
    "0",
    "-1",
    "4294967296",
    "18446744073709551616",
    "9" * 5000,
    "1e9",
    "\N{ARABIC-INDIC DIGIT SEVEN}",
    UNDECODABLE,
    f"entry={UNDECODABLE}",
    "entry=",
    f"entry={'9' * 5000}",
    "entry=/dev/zero",
    "entry=/dev/zero:x",
    "entry=18446744073709551616",
    f"entry=/{UNDECODABLE}:{UNDECODABLE}",
    f"nf:inet4/output@{'9' * 5000}",
    "/",
    "/dev/full",
    "/proc/self/mem",
    "/" + "a/" * 5000,
    "a" * 300,
    "[" * 30000,
    '{"a":' * 5000,
    "\N{SNOWMAN}",
    "a\nb\x1b[31m",
    "=",
    "/:/",
    "%s{0}",
)
"""Words that are wrong nearly everywhere: types, lengths, encodings, places."""


class Place(StrEnum):
    """The file behind a standard descriptor."""

    FILE = "file"
    FULL = "full"
    CLOSED = "closed"
    READ_ONLY = "read-only"
    NO_READER = "no reader"


@dataclass(frozen=True)
class Case:
    """A command line, and its standard descriptors.

    ``signal`` is sent while the command waits for the module, which has not answered by then.
    """

    arguments: tuple[str, ...]
    stdin: Place = Place.FILE
    stdout: Place = Place.FILE
    stderr: Place = Place.FILE
    text: str = ""
    signal: int = 0

    def __str__(self) -> str:
        def shown(text: str) -> str:
            short = text if len(text) < 30 else f"{text[:12]}..({len(text)})"
            return short.encode("ascii", "backslashreplace").decode() or "''"

        parts = [shown(argument) for argument in self.arguments]
        for name in ("stdin", "stdout", "stderr"):
            if (place := getattr(self, name)) is not Place.FILE:
                parts += [f"{name}:{place}"]
        if self.text:
            parts.append(f"<{shown(self.text)}")
        if self.signal:
            parts.append(f"signal:{self.signal}")
        return " ".join(parts)


@dataclass(frozen=True)
class Outcome:
    """The end of a case; a signal's number is negative."""

    status: int
    out: str
    err: str


def faults(case: Case, outcome: Outcome) -> list[str]:
    """The faults in the end of a case; none if all is well."""
    found = []
    text = outcome.out + outcome.err
    if "Traceback (most recent call last)" in text or "Exception ignored" in text:
        found.append("a traceback")
    expected = set(EXIT_CODES)
    if case.arguments[0] == "run":
        # the command's own status, or that of the signal that ended it
        expected |= set(range(256))
    # a signal kills a process that does not wait for signals
    expected.add(-case.signal if case.signal else 0)
    if outcome.status not in expected:
        found.append(f"exit status {outcome.status}")
    if re.search(r"\[Errno \d+\]", outcome.err):
        found.append("Python's text of an error")
    if outcome.status in {*range(1, 8), *range(11, 16), 20, 21} and case.stderr is Place.FILE:
        complaints = [line for line in outcome.err.splitlines() if line.startswith("ipttctl: ")]
        if len(complaints) != 1 or outcome.err.splitlines()[-1] != complaints[0]:
            found.append(f"{len(complaints)} lines that say what was wrong")
        if outcome.err != "".join(c for c in outcome.err if c.isprintable() or c in "\n\t"):
            found.append("something that is not printable")
    return found


def cases() -> list[Case]:
    """All cases: the arguments, files and signals of each command."""
    found: dict[Case, None] = {}
    for command in _commands():
        line = (*command.path[1:], *_needed(command))
        found |= dict.fromkeys(_arguments(command, line))
        found |= dict.fromkeys(_places(line, (*command.path[1:], "--help")))
        found |= dict.fromkeys(_signals(line))
    found |= dict.fromkeys(_texts())
    return list(found)


def _commands() -> list[manual.Command]:
    # a group without a command of its own prints its help
    return [command for command in manual.root().all() if len(command.path) > 1]


#: arguments and options with which a command gets as far as the module, by command name
_SENSIBLE: Final = {
    "LINK": "3",
    "LINK|TXN": "txn:3",
    "LINK/NAME": "3/x",
    "NAME": "web",
    "FROM": "3/x",
    "TO": "3/y",
    "KEY": "1",
    "VALUE": "1",
    "FILE": "-",
    "[SELECT] FILE...": "x",
}
_PROGRAM: Final = ("--fd", "entry=0")
_BEFORE: Final[dict[str, Sequence[str]]] = {
    "attach": _PROGRAM,
    "swap": ("3", *_PROGRAM),
    "run": (*_PROGRAM, "true"),
    "detach": ("3",),
    "module build": ("--kernel", "none"),
}


def _needed(command: manual.Command) -> Sequence[str]:
    """The arguments that a command line needs to make sense."""
    name = " ".join(command.path[1:])
    if name in _BEFORE:
        return _BEFORE[name]
    return [_SENSIBLE[p.metavar] for p in command.parameters_of("argument") if p.required]


def _one_of(values: Sequence[_T], *what: str) -> _T:
    """One of the values for a command or an option, always the same one."""
    return values[zlib.crc32(" ".join(what).encode()) % len(values)]


def _arguments(command: manual.Command, line: tuple[str, ...]) -> Iterator[Case]:
    name = command.path[1:]
    yield Case((*line, *WORDS[:3]))
    yield Case(line)
    for option in command.parameters_of("option"):
        # the longest, as the spellings of --help come in no certain order
        called = max(option.opts, key=len)
        given = () if option.is_flag else (_one_of(WORDS, *name, called),)
        yield Case((*line, called, *given))
    for number, argument in enumerate(command.parameters_of("argument")):
        needed = [*_needed(command), "1", "1"]
        word = _one_of(WORDS, *name, argument.name)
        yield Case((*name, *needed[:number], word, *needed[number + 1 : len(_needed(command))]))


def _places(line: tuple[str, ...], asking: tuple[str, ...]) -> Iterator[Case]:
    outputs = (Place.FULL, Place.CLOSED, Place.READ_ONLY, Place.NO_READER)
    yield Case(line, stdout=_one_of(outputs, *line))
    yield Case(line, stderr=_one_of(outputs, "stderr", *line))
    yield Case(line, Place.CLOSED, Place.CLOSED, Place.CLOSED)
    yield Case(asking, stdout=_one_of(outputs, *asking))


def _signals(line: tuple[str, ...]) -> Iterator[Case]:
    yield Case(line, signal=_one_of((1, 2, 15), "signal", *line))


def _texts() -> Iterator[Case]:
    """Files of ``apply`` and ``swap --txn``."""
    texts = (
        "[" * 100000,
        "{a: " * 5000,
        "- " * 5000,
        "links: [1]",
        "links: {x: {fd: {entry: 99999999999999999999}}}",
        "links: {x: {id: {entry: 12}, link: 99999999999999999999}}",
        f"links: {{x: {{id: {{entry: {'9' * 5000}}}}}}}",
        f"links: {{x: {{id: {{entry: 12}}, cookie: {'9' * 5000}}}}}",
        'links: {x: {pinned: {entry: "/\\0"}}}',
        'links: {x: {pinned: {entry: "/\\ud800"}}}',
        'links: {x: {id: {entry: 12}, maps: {"\\ud800": [1]}}}',
        'links: {x: {id: {entry: 12}, filter: "\\udcff"}}',
        "links: &a {x: *a}",
        "links: !!python/object:os.system {}",
        "links: {? [1, 2] : 3}",
        "links: {? {a: b} : 3}",
        "a: &a [1]\nb: &b [*a, *a]",
        "links: {x: {id: {entry: 12}, maps: {m: {1: .inf}}}}",
        "\x00",
        "\N{BOM}links: {}",
    )
    for text in texts:
        yield Case(("apply", "-"), text=text)
        one = text.replace("links: {x: {", "[{link: 3, ").removesuffix("}")
        yield Case(("swap", "--txn", "-"), text=one if one == text else f"{one}]")
