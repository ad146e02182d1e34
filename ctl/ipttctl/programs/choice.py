# SPDX-License-Identifier: GPL-2.0
"""A program set described by its sources; nothing is opened before use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from ipttctl.bpf import syscalls
from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.errors import KernelError, ProgramError
from ipttctl.link.limits import Limits
from ipttctl.link.model import ProgramSet
from ipttctl.programs import maps as link_maps
from ipttctl.programs.keep import KeptMaps
from ipttctl.programs.sources import ProgramSource, open_sources, program_type, relative_to
from ipttproto import Slot


@dataclass(frozen=True)
class ProgramChoice:
    """A choice of programs by slot, a filter, a cookie, and a payload map by name or id.

    ``filter`` is a tcpdump expression or instructions, as ``compile_filter`` takes them.
    ``constants`` are values by name, for the programs of files: text, or what JSON has.
    ``digests`` are those that programs must have, by slot (see ``programs.digests``). ``limits``
    leave out events.
    """

    sources: Mapping[Slot, ProgramSource]
    filter: str | None = None
    cookie: int | None = None
    payload: str | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[Slot, str] = field(default_factory=dict)
    limits: Limits | None = None

    def relative_to(self, directory: Path) -> Self:
        """The same choice, with relative paths resolved against a directory."""
        sources = {slot: relative_to(directory, source) for slot, source in self.sources.items()}
        return replace(self, sources=sources)

    @contextmanager
    def open(
        self, on_compile: Callable[[], None] | None = None, *, keep: KeptMaps | None = None
    ) -> Iterator[ProgramSet]:
        """Open the program set; its descriptors are closed at the end of the block.

        ``on_compile`` is called before a compilation, which takes seconds. ``keep`` are maps of a
        link that the programs of files are loaded with.

        Raises:
            ProgramError: a program or a constant is missing, a program or the filter does not
                compile or load, a program has another digest, or a map cannot be kept.
            UsageError: a constant's value does not fit its type.
        """
        with ExitStack() as stack:
            programs = stack.enter_context(
                open_sources(
                    self.sources,
                    on_compile=on_compile,
                    constants=self.constants,
                    keep=keep,
                    expected=self.digests,
                )
            )
            payload = None
            if self.payload is not None:
                payload = stack.enter_context(
                    link_maps.map_of_programs(programs.values(), self.payload)
                ).fd
            try:
                yield ProgramSet(programs, compiled(self.filter), self.cookie, payload, self.limits)
            except KernelError as error:
                if error.attribute == "programs.program.fd":
                    check_types(programs)
                raise


def check_types(programs: Mapping[Slot, int]) -> None:
    """Check that programs, given as descriptors, have the types that their slots take.

    The module refuses other types too, but cannot say what they are.

    Raises:
        ProgramError: one has another type, or is not a program.
    """
    for slot, fd in programs.items():
        wanted = syscalls.program_type_name(program_type(slot))
        with Program.from_fd(fd) as program:
            if program.type != wanted:
                raise ProgramError(
                    f"the program for slot {slot.name.lower()} is of type {program.type}",
                    f"this slot takes programs of type {wanted}",
                )


def compiled(expression: str | None) -> bytes | None:
    """Compile a tcpdump expression or instructions to classic BPF, as ``compile_filter`` does.

    Raises:
        ProgramError: the expression is not valid, or libpcap is missing.
    """
    if not expression:
        return None

    return compile_filter(expression)
