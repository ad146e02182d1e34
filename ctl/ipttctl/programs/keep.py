# SPDX-License-Identifier: GPL-2.0
"""The maps of a link that new programs are loaded with, so that a swap loses nothing in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.map_copy import copy_entries
from ipttctl.bpf.map_match import difference
from ipttctl.bpf.maps import Map
from ipttctl.bpf.specs import CollectionSpec
from ipttctl.errors import ProgramError
from ipttctl.link.model import Link, ProgramSet
from ipttctl.programs.maps import UsedMap, maps_of, shortened
from ipttproto import Slot

_RODATA: Final = ".rodata"
#: a section of variables begins with this, and its map's name ends with it
_DOT: Final = "."


class KeptMaps:
    """Maps of a link by name, for programs that are loaded to be swapped in.

    The new programs get the maps of the same names that the link's programs use: the same maps, not
    copies, so that old and new programs count on in them while the swap is under way. Constants
    (``.rodata``) belong to a program, and are never kept. Variables (``.data``, ``.bss``) are kept
    as one map, by the name of their section, whatever the object file is called.

        link = controller.link(3)
        with keep_maps(link) as kept, choice.open(keep=kept) as programs:
            controller.swap(link.id, programs, expect_generation=link.generation)
    """

    def __init__(
        self,
        link: Link,
        used: Sequence[UsedMap],
        names: Collection[str] = (),
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Keep maps that ``used`` has open: those with ``names``, or all without them.

        ``warn`` is called with a sentence for each map of the link that is not kept, unless
        ``names`` are given.

        Raises:
            ProgramError: the link has no map of a name, or the name is of constants.
        """
        self._link = link
        self._names = tuple(names)
        self._warn = warn
        self._maps = [one for one in used if not _is_constants(one.map.name)]
        self._taken: set[int] = set()
        self._asked: set[str] = set()
        for name in self._names:
            if _is_constants(name):
                raise ProgramError(
                    f"map {name} cannot be kept: it holds the constants of its program",
                    "set them for the new one",
                )
            if not self._named(name):
                known = ", ".join(one.map.name or "-" for one in self._maps)
                raise ProgramError(
                    f"link {link.id} has no map {name} to keep",
                    f"there are: {known}" if known else "",
                )

    def of_file(self, spec: CollectionSpec, file: str, slots: Collection[Slot]) -> dict[str, Map]:
        """The maps for programs of a file that go to some slots, by the names in its spec.

        Raises:
            ProgramError: a map differs from the spec's, there are several of its name, or a
                variable is set that lies in a map to be kept.
        """
        found = {}
        for name, wanted in spec.maps.items():
            if not self._is_asked(name):
                continue
            one = self._counterpart(name, slots)
            if one is None:
                continue
            why = difference(spec, wanted, one)
            if why:
                raise ProgramError(
                    f"{file}: map {name} cannot be that of link {self._link.id}, which has {why}",
                    f"keep other maps, or copy it with `ipttctl map copy` to map {name}",
                )
            self._check_variables(spec, file, name)
            self._taken.add(one.info.id)
            found[name] = one
        return found

    def check_loaded(self, slot: Slot, how: str, fd: int) -> None:
        """Check that a program which is loaded already uses no other maps of these names.

        Raises:
            ProgramError: it does: its maps are fixed.
        """
        for identifier in syscalls.program_maps(fd):
            with Map.from_id(identifier) as one:
                name = one.name
            if not self._is_asked(name):
                continue
            same = self._named(name)
            if any(one.map.info.id == identifier for one in same):
                self._taken.add(identifier)
            elif same:
                raise ProgramError(
                    f"the program for slot {slot.name.lower()} (--{how}) is loaded already, with a "
                    f"map {name} of its own: the maps of a loaded program are fixed",
                    "give its --source or --object, or `ipttctl map copy` to its map",
                )

    def finish(self) -> None:
        """Report the maps that are not kept, once all programs are known.

        Raises:
            ProgramError: the new programs have no map of a name that was given.
        """
        for name in self._names:
            if name not in self._asked:
                raise ProgramError(
                    f"the new programs have no map {name} to keep", "give the name of one they have"
                )
        if self._names or self._warn is None:
            return
        for one in self._maps:
            if one.map.info.id not in self._taken:
                self._warn(
                    f"map {one.map.name or one.map.info.id} of link {self._link.id} is not kept: "
                    "the new programs have none of that name"
                )

    def _is_asked(self, name: str) -> bool:
        """Whether a map of the new programs is to be kept."""
        if _is_constants(name):
            return False
        if not self._names:
            return True
        alike = {shortened(name), _section(name)} - {""}
        asked = [n for n in self._names if {shortened(n), _section(n)} & alike]
        self._asked |= set(asked)
        return bool(asked)

    def _named(self, name: str) -> list[UsedMap]:
        """The link's maps of a name; for variables of that section if there are none."""
        exact = [one for one in self._maps if one.map.name == shortened(name)]
        section = _section(name)
        return exact or [one for one in self._maps if section and section == _section(one.map.name)]

    def _counterpart(self, name: str, slots: Collection[Slot]) -> Map | None:
        """The link's map of a name; if there are several, the one that these slots use."""
        found = self._named(name)
        if len(found) > 1:
            here = [one for one in found if set(one.slots) & set(slots)]
            if len(here) != 1:
                ids = ", ".join(str(one.map.info.id) for one in found)
                raise ProgramError(
                    f"link {self._link.id} has maps {ids} of the name {name}: it is not clear "
                    "which to keep",
                    "name other maps to keep",
                )
            found = here
        return found[0].map if found else None

    def _check_variables(self, spec: CollectionSpec, file: str, name: str) -> None:
        """Check that no variable is set in a map that is kept: the map has its own content."""
        for variable in spec.values:
            if spec.elf and spec.elf.content.constants[variable].map == name:
                raise ProgramError(
                    f"{file}: {variable} cannot be set: it is a variable in map {name}, which is "
                    "kept with its content",
                    "keep other maps, or make it a constant (const volatile)",
                )

    def copy_to(self, programs: ProgramSet) -> None:
        """Copy the maps to those of the same names that loaded programs use, entry by entry.

        This is for programs that need maps of their own, such as those of a shadow. A map that they
        share with the link is left alone.

        Raises:
            ProgramError: keys or values differ in size, or a map of the link has no keys.
        """
        for identifier, slots in _slots_of_maps(programs).items():
            with Map.from_id(identifier) as own:
                if not self._is_asked(own.name):
                    continue
                one = self._counterpart(own.name, slots)
                if one is None:
                    continue
                self._taken.add(one.info.id)
                if one.info.id != identifier:
                    copy_entries(one, own)
        self.finish()


@contextmanager
def keep_maps(
    link: Link, names: Collection[str] = (), warn: Callable[[str], None] | None = None
) -> Iterator[KeptMaps]:
    """Keep maps of a link (see ``KeptMaps``), which are open until the end of the block.

    Raises:
        ProgramError: the link has no map of a name, or the name is of constants.
        PrivilegeError: the caller may not open programs and maps by id (CAP_SYS_ADMIN).
    """
    with maps_of(link) as used:
        yield KeptMaps(link, used, names, warn)


def _slots_of_maps(programs: ProgramSet) -> dict[int, list[Slot]]:
    """The ids of the maps that loaded programs use -> the slots of these programs."""
    slots: dict[int, list[Slot]] = {}
    for slot, fd in programs.programs.items():
        for identifier in syscalls.program_maps(fd):
            slots.setdefault(identifier, []).append(slot)
    return slots


def _section(name: str) -> str:
    """The section of variables that a map's name ends with; empty for any other map."""
    _, dot, rest = name.partition(_DOT)
    return dot + rest


def _is_constants(name: str) -> bool:
    return _section(name).startswith(_RODATA)
