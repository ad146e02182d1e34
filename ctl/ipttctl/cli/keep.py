# SPDX-License-Identifier: GPL-2.0
"""The options that say what a link keeps when its programs are swapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from typer.core import TyperCommand

from ipttctl.cli.options import tell_compiling
from ipttctl.cli.printing import note
from ipttctl.errors import LinkGoneError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.keep import unchanged_generation
from ipttctl.link.model import Part, ProgramSet, Swap
from ipttctl.link.names import LinkRef
from ipttctl.options import Option
from ipttctl.programs.choice import ProgramChoice
from ipttctl.programs.keep import keep_maps
from ipttproto import Slot

_KEEP_MAPS: Final = "--keep-maps"
#: the value of the option without a value; no map has this name
_ALL: Final = "*"


class KeepingCommand(TyperCommand):
    """A command that takes ``--keep-maps`` with a value, after ``=``, or without one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give the option without a value the one that stands for all maps."""
        end = args.index("--") if "--" in args else len(args)
        own = [f"{_KEEP_MAPS}={_ALL}" if word == _KEEP_MAPS else word for word in args[:end]]
        return super().parse_args(ctx, own + args[end:])


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """The option that says which parts of a program set a swap keeps (see ``ipttctl.options``)."""

    keep: Annotated[
        list[str],
        Option("--keep", "keep the filter, the cookie, the payload, the limits", metavar="PARTS"),
    ] = field(default_factory=list)

    def parts(self) -> tuple[Part, ...]:
        """The parts: one or several, with commas, in each value.

        Raises:
            UsageError: there is no such part.
        """
        known = [part.value for part in Part]
        words = [word for text in self.keep for word in text.split(",")]
        for word in words:
            if word not in known:
                raise UsageError(
                    f"--keep: '{word}' is not a part that can be kept",
                    f"parts are {', '.join(known)}",
                )
        return tuple(dict.fromkeys(Part(word) for word in words))


@dataclass(frozen=True, kw_only=True)
class KeepOptions(PartOptions):
    """The options that say what a swap keeps (see ``ipttctl.options``)."""

    keep_maps: Annotated[
        str | None,
        Option(
            _KEEP_MAPS,
            "give the programs of files the maps of the same names that the link uses: all, or "
            "those after =, with commas",
            metavar="[=NAMES]",
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Whether any option is given."""
        return self.keep_maps is not None or bool(self.keep)

    def kept(self) -> Kept:
        """The maps and the parts to keep.

        Raises:
            UsageError: a part is none that can be kept, or a name is empty.
        """
        names = None
        if self.keep_maps is not None:
            names = () if self.keep_maps == _ALL else tuple(self.keep_maps.split(","))
            if "" in names:
                raise UsageError(f"{_KEEP_MAPS}: '{self.keep_maps}' is not a list of maps' names")
        return Kept(names, self.parts())


@dataclass(frozen=True)
class Kept:
    """The names of maps that a swap keeps (none are all, None keeps no maps), and its parts."""

    maps: tuple[str, ...] | None = None
    parts: tuple[Part, ...] = ()

    @contextmanager
    def open(
        self,
        controller: Controller,
        link: LinkRef,
        choice: ProgramChoice,
        expect_generation: int | None,
        expect_programs: Mapping[Slot, int],
        *,
        copied: bool = False,
    ) -> Iterator[Swap]:
        """A swap of a link to chosen programs, which are loaded with the maps that it keeps.

        With ``copied`` the programs have maps of their own, to which these are copied. The swap is
        of the link and the generation that the maps are of: if somebody else swaps it meanwhile,
        ours is refused, and if another link gets its name, that is left alone.

        Raises:
            LinkGoneError: there is no such link.
            ExpectationError: it has another generation than expected.
            ProgramError: a program is missing or does not load, or a map cannot be kept.
        """
        with ExitStack() as stack:
            keep = None
            if self.maps is not None:
                found = controller.link(link)
                link, expect_generation = found.id, unchanged_generation(found, expect_generation)
                keep = stack.enter_context(keep_maps(found, self.maps, note))
            shared = None if copied else keep
            programs = stack.enter_context(choice.open(tell_compiling, keep=shared))
            if keep is not None and copied:
                keep.copy_to(programs)
            yield Swap(link, programs, expect_generation, expect_programs, keep=self.parts)

    @contextmanager
    def open_named(
        self, controller: Controller, name: str, choice: ProgramChoice
    ) -> Iterator[tuple[ProgramSet, int | None]]:
        """Chosen programs for the link of a name, if there is one, and its generation then.

        Raises:
            ProgramError: a program is missing or does not load, or a map cannot be kept.
        """
        with ExitStack() as stack:
            keep = generation = None
            if self.maps is not None:
                with suppress(LinkGoneError):
                    found = controller.link(name)
                    keep = stack.enter_context(keep_maps(found, self.maps, note))
                    generation = found.generation
            yield stack.enter_context(choice.open(tell_compiling, keep=keep)), generation
