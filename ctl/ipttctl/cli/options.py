# SPDX-License-Identifier: GPL-2.0
"""Options that several commands take, and what their values mean."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated, Final, Self

import typer

from ipttctl.errors import KernelError, ProgramError, UsageError
from ipttctl.objects import ProgramSet
from ipttctl.sources import KINDS, ProgramSource, open_sources, parse_source, program_type
from ipttproto import Slot

_LIMITS: Final = {"--expect-prog": 0xFFFFFFFF}


class Output(enum.StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="text for people, json for programs")
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
    typer.Option("--filter", metavar="EXPR", help="tcpdump expression that packets must match"),
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
    typer.Option("--expect-gen", metavar="N", min=1, help="only if the link has this generation"),
]
ExpectProgramOption = Annotated[
    list[str],
    typer.Option("--expect-prog", metavar="SLOT=ID", help="only if the slot holds it; 0: is empty"),
]


def number(option: str, text: str, maximum: int) -> int:
    """A number in decimal, or in hex after 0x.

    Raises:
        UsageError: it is none, or out of range.
    """
    try:
        value = int(text, 0)
    except ValueError:
        raise UsageError(f"{option}: '{text}' is not a number") from None
    if not 0 <= value <= maximum:
        raise UsageError(f"{option}: {text} is not between 0 and {maximum}")
    return value


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
    return {s: number(option, v, _LIMITS[option]) for s, v in by_slot(option, values)}


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
        return ProgramChoice.parse(programs, self.filter_expression, self.cookie, self.payload)


@dataclass(frozen=True)
class ProgramChoice:
    """The program set that options describe, nothing of it opened yet."""

    sources: Mapping[Slot, ProgramSource]
    filter: str | None
    cookie: int | None
    payload: str | None = None

    @classmethod
    def parse(
        cls,
        programs: Mapping[str, Sequence[str]],
        filter_expression: str | None,
        cookie: str | None,
        payload: str | None = None,
    ) -> Self:
        """The choice that options make: SLOT=VALUE by the kind of source, --filter and the others.

        Raises:
            UsageError: a value makes no sense, a slot is given twice, or no program at all.
        """
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
        return cls(
            sources,
            filter_expression,
            None if cookie is None else number("--cookie", cookie, (1 << 64) - 1),
            payload,
        )

    @contextmanager
    def open(self) -> Iterator[ProgramSet]:
        """The program set; what had to be opened for it is closed at the end.

        Raises:
            ProgramError: there is no such program, or it or the filter does not compile or load.
        """
        with ExitStack() as stack:
            programs = stack.enter_context(open_sources(self.sources, on_compile=_tell_compiling))
            payload = None
            if self.payload is not None:
                from ipttctl.link_maps import map_of_programs  # noqa: PLC0415  # loads libbpf

                payload = stack.enter_context(map_of_programs(programs.values(), self.payload)).fd
            try:
                yield ProgramSet(programs, compiled(self.filter), self.cookie, payload)
            except KernelError as error:
                if error.attribute == "programs.program.fd":
                    _blame(programs)
                raise


def _tell_compiling() -> None:
    typer.echo("compiling the BPF programs (once; takes some seconds)...", err=True)


def _blame(programs: Mapping[Slot, int]) -> None:
    """The module refused a descriptor; say which, and what it is, where that can be told.

    Raises:
        ProgramError: one of them is not a program of the type that slots take.
    """
    from ipttctl import bpf  # noqa: PLC0415  # loads libbpf
    from ipttctl.programs import Program  # noqa: PLC0415  # loads libbpf

    for slot, fd in programs.items():
        wanted = bpf.program_type_name(program_type(slot))
        with Program.from_fd(fd) as program:
            if program.type != wanted:
                raise ProgramError(
                    f"the program for slot {slot.name.lower()} is of type {program.type}",
                    f"this slot takes programs of type {wanted}",
                )


def compiled(expression: str | None) -> bytes | None:
    """The classic BPF of a tcpdump expression.

    Raises:
        ProgramError: it is not an expression, or libpcap is missing.
    """
    if not expression:
        return None
    from ipttctl.filters import compile_filter  # noqa: PLC0415  # loads libpcap

    return compile_filter(expression)
