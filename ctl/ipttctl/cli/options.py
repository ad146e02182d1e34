# SPDX-License-Identifier: GPL-2.0
"""Options that several commands take, and what their values mean."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Final

import typer

from ipttctl.errors import UsageError
from ipttctl.numbers import U32_MAX, number
from ipttctl.programs.choice import ProgramChoice
from ipttctl.programs.sources import KINDS, ProgramSource, parse_source
from ipttproto import Slot

_COOKIE_MAX: Final = (1 << 64) - 1


class Output(enum.StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="text for people, json for programs")
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAMES",
        help="only these columns, in this order: time,pkt_info,iptables_info",
    ),
]
FdOption = Annotated[
    list[str],
    typer.Option("--fd", metavar="SLOT=FD", help="a program that the calling process left open"),
]
PinnedOption = Annotated[
    list[str], typer.Option("--pinned", metavar="SLOT=PATH", help="a program pinned in a bpffs")
]
IdOption = Annotated[
    list[str], typer.Option("--id", metavar="SLOT=ID", help="a program by its id in the kernel")
]
TagOption = Annotated[
    list[str],
    typer.Option("--tag", metavar="SLOT=TAG", help="the only loaded program of a tag"),
]
ProcessOption = Annotated[
    list[str],
    typer.Option("--pid", metavar="SLOT=PID:FD", help="a program that another process has open"),
]
SourceOption = Annotated[
    list[str],
    typer.Option(
        "--source", metavar="SLOT=FILE.c:FUNCTION", help="a function of a C file, by bpfcc"
    ),
]
ObjectOption = Annotated[
    list[str],
    typer.Option(
        "--object",
        metavar="SLOT=FILE.o:SECTION",
        help="a program of an object file, by its section or its name",
    ),
]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="EXPR",
        help="tcpdump expression that packets must match (or bytecode as of iptables -m bpf)",
    ),
]
CookieOption = Annotated[
    str | None,
    typer.Option("--cookie", metavar="N", help="what bpf_get_attach_cookie() returns (0x.. too)"),
]
PayloadOption = Annotated[
    str | None,
    typer.Option(
        "--payload",
        metavar="MAP",
        help="per-CPU array of the programs, by name or id: its bytes go with their events",
    ),
]
ExpectGenerationOption = Annotated[
    int | None,
    typer.Option(
        "--expect-gen", metavar="N", min=1, max=U32_MAX, help="only if the link has this generation"
    ),
]
ExpectProgramOption = Annotated[
    list[str],
    typer.Option("--expect-prog", metavar="SLOT=ID", help="only if the slot holds it; 0: is empty"),
]


def by_slot(option: str, values: Sequence[str]) -> Iterator[tuple[Slot, str]]:
    """The (slot, value) of each SLOT=VALUE.

    Raises:
        UsageError: one is not of this form, or there is no such slot.
    """
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"{option}: '{text}' is not SLOT=VALUE")
        if name.upper() not in Slot.__members__:
            known = ", ".join(slot.name.lower() for slot in Slot)
            raise UsageError(f"{option}: there is no slot '{name}'", f"slots are {known}")
        yield Slot[name.upper()], value


def expected_programs(values: Sequence[str]) -> Mapping[Slot, int]:
    """Program ids by slot from --expect-prog.

    Raises:
        UsageError: a value makes no sense.
    """
    option = "--expect-prog"
    return {s: number(option, v, U32_MAX) for s, v in by_slot(option, values)}


@dataclass(frozen=True, kw_only=True)
class ProgramOptions:
    """The options by which commands are given a program set (see ``ipttctl.cli.groups``)."""

    fd: FdOption = field(default_factory=list)
    pinned: PinnedOption = field(default_factory=list)
    program_id: IdOption = field(default_factory=list)
    tag: TagOption = field(default_factory=list)
    process: ProcessOption = field(default_factory=list)
    source: SourceOption = field(default_factory=list)
    object_file: ObjectOption = field(default_factory=list)
    filter_expression: FilterOption = None
    cookie: CookieOption = None
    payload: PayloadOption = None

    @property
    def given(self) -> bool:
        """Whether there is any of them."""
        return any(value not in ([], None) for value in asdict(self).values())

    def choice(self) -> ProgramChoice:
        """What they say.

        Raises:
            UsageError: a value makes no sense, a slot is given twice, or no program at all.
        """
        programs = {
            "fd": self.fd,
            "pinned": self.pinned,
            "id": self.program_id,
            "tag": self.tag,
            "pid": self.process,
            "source": self.source,
            "object": self.object_file,
        }
        sources: dict[Slot, ProgramSource] = {}
        for kind, values in programs.items():
            option = f"--{kind}"
            for slot, text in by_slot(option, values):
                if slot in sources:
                    raise UsageError(f"slot {slot.name.lower()} is given twice")
                try:
                    sources[slot] = parse_source(kind, text)
                except UsageError as error:
                    raise UsageError(f"{option}: {error.problem}", error.remedy) from None
        if not sources:
            known = ", ".join(f"--{kind}" for kind in KINDS)
            raise UsageError("no program is given", f"use {known}, each SLOT=VALUE")
        cookie = None if self.cookie is None else number("--cookie", self.cookie, _COOKIE_MAX)
        return ProgramChoice(sources, self.filter_expression, cookie, self.payload)


def tell_compiling() -> None:
    """Say why it takes long."""
    typer.echo("compiling the BPF programs (once; takes some seconds)...", err=True)
