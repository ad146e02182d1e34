# SPDX-License-Identifier: GPL-2.0
"""The differences between declared maps and those of a plan's links and programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from ipttctl.bpf.maps import Map
from ipttctl.errors import ProgramError
from ipttctl.link.model import ProgramSet
from ipttctl.programs import maps as link_maps
from ipttctl.state.journal import RecordedLink
from ipttctl.state.maps import MapDifference
from ipttctl.state.model import DeclaredMap, about
from ipttctl.state.owners import other_owner
from ipttctl.state.plan import Match, Plan


def live_maps(match: Match, opened: ExitStack) -> Iterator[tuple[str, MapDifference]]:
    """The differences in the declared maps of a link whose programs stay."""
    if not match.declared.maps or match.link is None:
        return

    for name, declared in match.declared.maps.items():
        yield from _difference(name, declared, link_maps.map_of(match.link, name), opened)


def new_maps(
    match: Match, programs: ProgramSet, opened: ExitStack
) -> Iterator[tuple[str, MapDifference]]:
    """The differences in the declared maps of programs that are not in the link yet."""
    if not match.declared.maps:
        return

    fds = list(programs.programs.values())
    for name, declared in match.declared.maps.items():
        yield from _difference(name, declared, link_maps.map_of_programs(fds, name), opened)


def check_maps(plan: Plan, differences: Sequence[tuple[Match, str, MapDifference]]) -> None:
    """Check that no map which changes is declared by the file of another owner.

    Raises:
        OtherOwnerError: one is.
    """
    if not differences:
        return
    theirs: dict[int, RecordedLink] = {}
    for entry in plan.others:
        for name in entry.maps:
            # somebody may have swapped programs in that have no such map
            with suppress(ProgramError), link_maps.map_of(plan.links[entry.link], name) as found:
                theirs[found.info.id] = entry
    for match, name, difference in differences if theirs else ():
        other = theirs.get(difference.map.info.id)
        if other is not None:
            what = f"{match.declared.name}/{name}: the map, which link {other.link} uses too,"
            raise other_owner(what, other.owner, plan.terms.owner)


def _difference(
    name: str, declared: DeclaredMap, found: Map, opened: ExitStack
) -> Iterator[tuple[str, MapDifference]]:
    """The difference of a map, if any: then ``opened`` keeps the map open."""
    with ExitStack() as ours:
        ours.enter_context(found)
        with about(name):
            difference = MapDifference.between(found, declared.entries)
        if difference.entries:
            opened.push(ours.pop_all())
            yield name, difference
