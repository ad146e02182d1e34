# SPDX-License-Identifier: GPL-2.0
"""The options that choose a link's programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Final

from ipttctl.errors import ProgramError, UsageError
from ipttctl.numbers import number
from ipttctl.options import Option
from ipttctl.programs.choice import ProgramChoice
from ipttctl.programs.digests import parse_digest
from ipttctl.programs.limit_options import LimitOptions
from ipttctl.programs.slots import by_slot
from ipttctl.programs.sources import (
    KINDS,
    ProgramSource,
    check_inherited,
    is_file,
    parse_source,
)
from ipttctl.system.inherited import Inherited
from ipttproto import Slot

_COOKIE_MAX: Final = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class _SetOptions:
    """The options that say what is in a program set."""

    fd: Annotated[
        list[str], Option("--fd", "a program that the calling process left open", metavar="SLOT=FD")
    ] = field(default_factory=list)
    pinned: Annotated[
        list[str], Option("--pinned", "a program pinned in a bpffs", metavar="SLOT=PATH")
    ] = field(default_factory=list)
    program_id: Annotated[
        list[str], Option("--id", "a program by its id in the kernel", metavar="SLOT=ID")
    ] = field(default_factory=list)
    tag: Annotated[
        list[str], Option("--tag", "the only loaded program with a tag", metavar="SLOT=TAG")
    ] = field(default_factory=list)
    process: Annotated[
        list[str], Option("--pid", "a program that another process has open", metavar="SLOT=PID:FD")
    ] = field(default_factory=list)
    source: Annotated[
        list[str],
        Option("--source", "a function of a C file, by bpfcc", metavar="SLOT=FILE.c:FUNCTION"),
    ] = field(default_factory=list)
    object_file: Annotated[
        list[str],
        Option(
            "--object",
            "a program of an object file, by its section or its name",
            metavar="SLOT=FILE.o:SECTION",
        ),
    ] = field(default_factory=list)
    constants: Annotated[
        list[str],
        Option(
            "--set",
            "a constant of the programs of files: a number, true, an enum's name, text, JSON",
            metavar="NAME=VALUE",
        ),
    ] = field(default_factory=list)
    digest: Annotated[
        list[str],
        Option(
            "--digest",
            "the program has to be this one: sha256:HEX of its file, or tag:HEX if it is loaded",
            metavar="SLOT=DIGEST",
        ),
    ] = field(default_factory=list)
    filter_expression: Annotated[
        str | None,
        Option(
            "--filter",
            "tcpdump expression that packets must match (or bytecode as for iptables -m bpf)",
            metavar="EXPR",
        ),
    ] = None
    cookie: Annotated[
        str | None,
        Option("--cookie", "value that bpf_get_attach_cookie() returns (0x.. too)", metavar="N"),
    ] = None
    payload: Annotated[
        str | None,
        Option(
            "--payload",
            "per-CPU array of the programs, by name or id: its bytes are added to events",
            metavar="MAP",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ProgramOptions(LimitOptions, _SetOptions):
    """The options that give commands a program set (see ``ipttctl.options``)."""

    @property
    def given(self) -> bool:
        """Whether any option is given."""
        return any(value not in ([], None) for value in asdict(self).values())

    def choice(self, inherited: Inherited) -> ProgramChoice:
        """The program choice that the options describe.

        ``inherited`` are the descriptors that ``fd`` may name: those that were open before we
        opened any.

        Raises:
            UsageError: a value is not valid, a slot is given twice, or no program is given.
            ProgramError: a descriptor was not left open.
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
                    check_inherited(sources[slot], inherited)
                except (UsageError, ProgramError) as error:
                    raise type(error)(f"{option}: {error.problem}", error.remedy) from None
        if not sources:
            known = ", ".join(f"--{kind}" for kind in KINDS)
            raise UsageError("no program is given", f"use {known}, each SLOT=VALUE")
        cookie = None if self.cookie is None else number("--cookie", self.cookie, _COOKIE_MAX)
        constants: dict[str, str] = {}
        for text in self.constants:
            name, equals, value = text.partition("=")
            if not name or not equals:
                raise UsageError(f"--set: '{text}' is not NAME=VALUE")
            if name in constants:
                raise UsageError(f"--set: constant {name} is given twice")
            constants[name] = value
        return ProgramChoice(
            sources,
            self.filter_expression,
            cookie,
            self.payload,
            constants,
            self._digests(sources),
            self.limits(),
        )

    def _digests(self, sources: Mapping[Slot, ProgramSource]) -> dict[Slot, str]:
        digests: dict[Slot, str] = {}
        for slot, text in by_slot("--digest", self.digest):
            name = slot.name.lower()
            if slot in digests or slot not in sources:
                why = "is given twice" if slot in digests else "has no program"
                raise UsageError(f"--digest: slot {name} {why}")
            try:
                digests[slot] = parse_digest(text, of_file=is_file(sources[slot]))
            except UsageError as error:
                raise UsageError(f"--digest: {name}: {error.problem}", error.remedy) from None
        return digests
