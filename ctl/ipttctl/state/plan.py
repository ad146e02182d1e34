# SPDX-License-Identifier: GPL-2.0
"""The plan that turns existing links into the declared ones.

A declared link matches an existing link at the declared place if apply made that under the same
name, if the entry gives its id, or if it has that name in the module; otherwise it is made. Only
persistent links are considered. Links of the file's owner that are not declared any more are
removed; those of other owners are never touched.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ipttctl.bpf import syscalls
from ipttctl.errors import (
    ExpectationError,
    KernelError,
    NameTakenError,
    OtherOwnerError,
    ProgramError,
    SwapRolledBackError,
    SwapWaitingError,
)
from ipttctl.hooks.hook import HookIdentity
from ipttctl.link.controller import Controller
from ipttctl.link.limits import NO_LIMITS
from ipttctl.link.model import Link
from ipttctl.programs import maps as link_maps
from ipttctl.programs.choice import compiled
from ipttctl.programs.sources import (
    ById,
    ByTag,
    FromObject,
    FromSource,
    ProgramSource,
    is_file,
    open_sources,
    source_digests,
)
from ipttctl.state.journal import Record, RecordedLink
from ipttctl.state.maps import MapDifference
from ipttctl.state.model import (
    OWNER_LABEL,
    DeclaredLink,
    State,
    Step,
    StepAction,
    Terms,
    about,
)
from ipttctl.state.owners import called, other_owner, owners, plain_labels, wanted_labels
from ipttctl.state.recorded import ROLLED_BACK, recorded, was_undone
from ipttproto import Slot


@dataclass(frozen=True)
class Match:
    """A declared link, the existing link that it matches, and their differences.

    ``labels`` are those to give it, None if it keeps its own. ``name_taken``: a link that is to go
    has the name until then. ``left``: it is left alone, since its last swap waits to be confirmed,
    it has a shadow, or what is declared was swapped in on trial and rolled back.
    """

    declared: DeclaredLink
    identity: HookIdentity
    digests: Mapping[Slot, str]
    link: Link | None
    changes: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None
    name_taken: bool = False
    left: bool = False

    @property
    def renamed(self) -> bool:
        """Whether the link is there with another name; one taken over by its id may have any."""
        if self.link is None or self.declared.link is not None:
            return False
        return self.declared.link_name not in {None, self.link.name}

    @property
    def kept(self) -> bool:
        """Whether the existing link keeps its programs."""
        return self.link is not None and not self.changes

    @property
    def runs(self) -> bool:
        """Whether the existing link has the declared programs, whatever else differs."""
        slots = {slot.name.lower() for slot in Slot}
        return self.link is not None and not slots & {*self.changes}

    @property
    def waits(self) -> bool:
        """Whether the last swap of the existing link waits to be confirmed or rolled back."""
        return self.link is not None and self.link.waits

    @property
    def on_trial(self) -> bool:
        """Whether the existing link cannot be swapped: other programs are tried."""
        return self.waits or (self.link is not None and self.link.shadow is not None)


@dataclass(frozen=True)
class Adopted:
    """A declared link that a process owns: it is left as it is, and none is made beside it."""

    name: str
    link: Link

    def __str__(self) -> str:
        owner = f"process {self.link.owner_pid} ({self.link.owner_comm})"
        return f"{self.name}: link {self.link.id} belongs to {owner}, and is left as it is"


@dataclass(frozen=True)
class Plan:
    """The steps planned for links; the maps of unchanged links are compared during the steps."""

    terms: Terms
    matches: tuple[Match, ...]
    adopted: tuple[Adopted, ...]
    surplus: tuple[tuple[str | None, Link], ...]
    """Links to detach, with their names if they are recorded."""
    record: Record
    """The recorded links of this file that still exist, with their ids, adopted ones included."""
    others: tuple[RecordedLink, ...]
    """The recorded links of other owners' files."""
    links: Mapping[int, Link]
    """All links, by id."""
    absent: frozenset[str] = frozenset()
    """The names of declared links whose place is missing."""
    taken: Mapping[int, str] = field(default_factory=dict)
    """The previous owner of each link that is taken over from another file, by the link's id."""

    def tries(self, match: Match) -> bool:
        """Whether a link is new and gets its programs by a swap, which may be rolled back.

        It passes every packet before, so that the module itself can keep it from dropping them.
        """
        return self.terms.on_trial and match.link is None and match.declared.hook.drops

    @property
    def deferred(self) -> bool:
        """Whether links stay that are to go: a swap waits, or will, and may be rolled back."""
        waits = any(match.waits for match in self.matches) and not self.terms.confirm
        return waits or (self.terms.on_trial and self.swaps)

    @property
    def swaps(self) -> bool:
        """Whether links are swapped."""
        return any((one.link and one.changes) or self.tries(one) for one in self.matches)

    def notes(self) -> Iterator[str]:
        """Sentences on what is left as it is, or is done beside the steps."""
        yield from map(str, self.adopted)
        for match in self.matches:
            link = match.link
            if link is None:
                continue
            name = match.declared.name
            if link.id in self.taken:
                yield f"{name}: link {link.id} is taken over from {called(self.taken[link.id])}"
            yield from _trial(match, link, self.terms)
        if self.terms.confirm and not any(match.waits for match in self.matches):
            yield "no swap waits to be confirmed"
        if self.terms.on_trial:
            if not self.swaps and any(match.waits for match in self.matches):
                yield "the swap that waits keeps the terms on which it was made"
            elif not self.swaps:
                yield "nothing is swapped, so that nothing can be rolled back"
            elif any(match.link is None and not self.tries(match) for match in self.matches):
                yield "new links stay if the swaps are rolled back"
            if any(map(self.tries, self.matches)):
                yield "new links that filter pass every packet if the swaps are rolled back"
        if self.deferred and self.surplus:
            going = ", ".join(str(link.id) for _, link in self.surplus)
            yield f"to be detached once no swap waits any more, by the next apply: link {going}"


def _trial(match: Match, link: Link, terms: Terms) -> Iterator[str]:
    """A sentence on a link whose next programs are on trial, or were."""
    differs = "the link is not as declared, and "
    differs += "left alone until then" if match.left else "apply is refused until then"
    if link.waits:
        told = f"{match.declared.name}: the last swap of link {link.id} is rolled back "
        told += f"{_when(link)}unless it is confirmed"
        if match.left or match.changes:
            yield f"{told}; {differs}"
        elif not terms.confirm:
            yield f"{told}: the link is as declared (apply --confirm keeps it)"
    elif link.shadow is not None:
        told = f"{match.declared.name}: link {link.id} has a shadow until it is promoted or dropped"
        yield f"{told}; {differs}" if match.left or match.changes else told
    elif match.left:
        yield (
            f"{match.declared.name}: what is declared was swapped in on trial, and rolled back; "
            f"link {link.id} is left alone (apply without --watch swaps it in again)"
        )


def _when(link: Link) -> str:
    """The occasions on which the last swap of a link is rolled back, with a blank after them."""
    times = [] if link.rollback_in is None else [f"in {link.rollback_in:.0f} s"]
    guards = [f"when '{guard}' does not hold" for guard in link.guards]
    return " ".join([" or ".join([*times, *guards]), ""]).lstrip()


def make_plan(
    controller: Controller,
    state: State,
    record: Record,
    terms: Terms,
    on_compile: Callable[[], None] | None,
) -> Plan:
    """Compare a state with the machine; see ``diff_state`` for the errors."""
    links = controller.links()
    claims = claimed(record, links)
    owned_by = owners(links, claims)
    ours = [entry for entry in claims if owned_by[entry.link] == terms.owner]
    free = {link.id: link for link in links if link.persistent and link.hook.gone is None}
    owned = {link.id: link for link in links if not link.persistent}
    known_names = {declared.name for declared in state.links}
    other_names = {entry.link: entry.name for entry in ours if entry.name in known_names}
    matches: list[Match] = []
    adopted: list[Adopted] = []
    for declared in sorted(state.links, key=lambda declared: declared.link is not None):
        with about(declared.name):
            _check_owner(declared, links, owned_by, terms)
            identity = declared.hook.identity()
            # a link made under the name goes before one that an entry takes over
            wanted = [e.link for e in ours if e.name == declared.name]
            if declared.link is not None and all(e.link != declared.link for e in ours):
                wanted.append(declared.link)
            if declared.link is None:
                wanted += [one.id for one in links if one.name == declared.link_name]
            # unless apply made it under another declared name
            wanted = [i for i in wanted if other_names.get(i, declared.name) == declared.name]
            link = next(
                (free[i] for i in wanted if i in free and free[i].hook.identity() == identity),
                None,
            )
            lost = None if link else _owned(declared, identity, record, terms.owner, owned)
            if lost is not None:
                adopted.append(Adopted(declared.name, lost))
                continue
            digests = _digests(declared, on_compile)
            if link is not None:
                del free[link.id]
                # a single link comes with its filter
                link = controller.link(link.id)
            found = _match(declared, identity, digests, link=link, claims=claims, terms=terms)
            matches.append(found)
    order = {declared.name: place for place, declared in enumerate(state.links)}
    matches.sort(key=lambda match: order[match.declared.name])
    matched = {match.link.id for match in matches if match.link}
    names = {entry.link: entry.name for entry in ours}
    surplus = tuple(
        (names.get(link.id) or (link.name if link.id in owned_by else None) or None, link)
        for link in links
        if link.id not in matched
        and link.persistent
        and not (link.hook.gone is None and _declared_absent(link, names, state))
        and owned_by.get(link.id, terms.owner if terms.prune else None) == terms.owner
    )
    _check_confirmed(matches, adopted, links, matched, terms)
    matches = [_with_name(match, links, surplus, owned_by, terms) for match in matches]
    theirs = {one.link.id for one in adopted}
    taken = {i: owned_by[i] for i in matched if owned_by.get(i, terms.owner) != terms.owner}
    present, known = {link.id: link for link in links}, {entry.link for entry in claims}
    others = [entry for entry in claims if owned_by[entry.link] != terms.owner]
    # of other owners also those that a process has adopted
    others += [
        entry
        for entry in record.links
        if entry.owner != terms.owner and entry.link in present and entry.link not in known
    ]
    adopted_entries = [entry for entry in record.links if entry.link in theirs]
    return Plan(
        terms,
        tuple(matches),
        tuple(adopted),
        surplus,
        Record((*ours, *adopted_entries)),
        tuple(e for e in others if e.link not in taken and e.link not in theirs),
        present,
        state.absent,
        taken,
    )


def _declared_absent(link: Link, names: Mapping[int, str], state: State) -> bool:
    """Whether a link is declared where there is no such network namespace or device now."""
    return link.id in state.absent_links or names.get(link.id, link.name) in state.absent


def _match(
    declared: DeclaredLink,
    identity: HookIdentity,
    digests: Mapping[Slot, str],
    *,
    link: Link | None,
    claims: Sequence[RecordedLink],
    terms: Terms,
) -> Match:
    labels = wanted_labels(declared, link, terms.owner)
    if link is None:
        return Match(declared, identity, digests, None, labels=labels)
    known = next((found for entry in claims if (found := entry.at(link))), None)
    changes = tuple(_changes(declared, digests, link, known, terms.owner))
    left = False
    if terms.patient and changes:
        left = link.waits or link.shadow is not None
        if not left and link.outcome in ROLLED_BACK:
            wanted = recorded(declared, identity, digests, terms.owner)
            left = was_undone(wanted, _unnamed(declared), claims, link)
    return Match(declared, identity, digests, link, () if left else changes, labels, left=left)


def _check_owner(
    declared: DeclaredLink, links: Sequence[Link], owned_by: Mapping[int, str], terms: Terms
) -> None:
    """Check that no link which this would be belongs to the file of another owner.

    Raises:
        OtherOwnerError: one does, and is not to be taken over.
    """
    for link in links:
        named = declared.link is None and link.name and link.name == declared.link_name
        owner = owned_by.get(link.id, terms.owner)
        if (named or link.id == declared.link) and owner != terms.owner and not terms.take:
            raise other_owner(f"link {link.id}", owner, terms.owner)


def require_free(plan: Plan) -> None:
    """Check that no link which is to change has other programs on trial.

    Raises:
        SwapWaitingError: the last swap of one waits to be confirmed or rolled back.
        KernelError: one has a shadow (EBUSY).
    """
    for match in plan.matches:
        link = match.link
        if link is None or not match.changes:
            continue
        action = f"{match.declared.name}: swapping link {link.id}"
        if link.waits:
            why = "its last swap waits to be confirmed or rolled back"
            raise SwapWaitingError(action, errno.EINPROGRESS, why)
        if link.shadow is not None:
            why = "it has a shadow: promote or drop it first"
            raise KernelError(action, errno.EBUSY, why)


def _check_confirmed(
    matches: Sequence[Match],
    adopted: Sequence[Adopted],
    links: Sequence[Link],
    matched: Collection[int],
    terms: Terms,
) -> None:
    """Check that a confirmation changes nothing else, and is about declared links alone.

    One that comes late, after the roll-back, must not swap the programs in again, now for good.

    Raises:
        SwapRolledBackError: it is too late.
        ExpectationError: a link is not as declared, or a process owns one that waits.
        OtherOwnerError: another link was swapped together with one of them.
    """
    if not terms.confirm:
        return
    for one in adopted:
        if one.link.waits:
            raise ExpectationError(
                f"{one.name}: confirming", errno.ESTALE, f"{one}: nothing is confirmed"
            )
    for match in matches:
        if match.link and match.changes and match.link.outcome in ROLLED_BACK:
            why = f": {match.link.violation}" if match.link.violation else ""
            raise SwapRolledBackError(
                f"{match.declared.name}: confirming",
                errno.ECANCELED,
                f"the last swap of link {match.link.id} was rolled back{why}",
            )
        if not match.kept:
            what = f"link {match.link.id} is not as declared" if match.link else "there is no link"
            raise ExpectationError(
                f"{match.declared.name}: confirming", errno.ESTALE, f"{what}: nothing is confirmed"
            )
        for link in links:
            if (
                match.link is not None
                and match.waits
                and link.waits
                and link.transaction == match.link.transaction
                and link.id not in matched
            ):
                raise OtherOwnerError(
                    f"{match.declared.name}: to confirm link {match.link.id} would confirm "
                    f"link {link.id} too, which is not declared here",
                    f"run `ipttctl confirm {match.link.id}` if that is right",
                )


def _with_name(
    match: Match,
    links: Sequence[Link],
    surplus: Sequence[tuple[str | None, Link]],
    owned_by: Mapping[int, str],
    terms: Terms,
) -> Match:
    """The match, having looked whether another link has the name that it needs.

    Raises:
        OtherOwnerError: one of another owner's file has.
        NameTakenError: one has, and stays.
    """
    wanted = match.declared.link_name
    if wanted is None or (match.link is not None and not match.renamed):
        return match
    holder = next((link for link in links if link.name == wanted), None)
    if holder is None:
        return match
    if all(link.id != holder.id for _, link in surplus):
        owner = owned_by.get(holder.id, terms.owner)
        if owner != terms.owner:
            raise other_owner(f"{wanted}: link {holder.id}", owner, terms.owner)
        where = f"link {holder.id} has this name, and is at another place: {holder.hook}"
        raise NameTakenError(f"{wanted}", errno.EEXIST, where)
    return replace(match, name_taken=True)


def _owned(
    declared: DeclaredLink,
    identity: HookIdentity,
    record: Record,
    owner: str,
    owned: Mapping[int, Link],
) -> Link | None:
    """The link at the declared place that would be this one if no process owned it."""
    wanted = [e.link for e in record.links if (e.name, e.owner) == (declared.name, owner)]
    if declared.link is not None:
        wanted.append(declared.link)
    else:
        wanted += [one.id for one in owned.values() if one.name == declared.link_name]
    found = (owned[i] for i in wanted if i in owned and owned[i].hook.gone is None)
    return next((link for link in found if link.hook.identity() == identity), None)


def claimed(record: Record, links: Sequence[Link]) -> list[RecordedLink]:
    """The recorded links that still exist and that no process owns, with their ids."""
    found: list[RecordedLink] = []
    for entry in record.links:
        taken = {other.link for other in found}
        link = next((one for one in links if one.id not in taken and entry.is_of(one)), None)
        if link is not None:
            # for a link that was about to be made, nothing else is known
            found.append(entry if entry.link else replace(entry, link=link.id))
    return found


def _digests(declared: DeclaredLink, on_compile: Callable[[], None] | None) -> dict[Slot, str]:
    programs = declared.programs
    loaded = {s: programs.sources[s] for s in programs.digests if not is_file(programs.sources[s])}
    with open_sources(loaded, expected=programs.digests):
        pass
    return source_digests(
        programs.sources, programs.constants, on_compile=on_compile, expected=programs.digests
    )


def _unnamed(declared: DeclaredLink) -> dict[str, int]:
    """The ids of programs whose sources may be other programs tomorrow, by slot."""
    sources = {
        slot: source
        for slot, source in declared.programs.sources.items()
        if not is_file(source) and not isinstance(source, ById | ByTag)
    }
    with open_sources(sources) as fds:
        return {slot.name.lower(): syscalls.program_info(fd).id for slot, fd in fds.items()}


def _changes(
    declared: DeclaredLink,
    digests: Mapping[Slot, str],
    link: Link,
    known: RecordedLink | None,
    owner: str,
) -> Iterator[str]:
    """The parts of a link's program set that differ from the declaration."""
    wanted = declared.programs
    for slot in sorted({*wanted.sources, *link.programs}):
        source = wanted.sources.get(slot)
        if source is None or not is_program(source, slot, link, known, digests.get(slot)):
            yield slot.name.lower()
    if compiled(wanted.filter) != link.filter:
        yield "filter"
    if (wanted.cookie or 0) != link.cookie:
        yield "cookie"
    if not is_payload(wanted.payload, link):
        yield "payload"
    if (wanted.limits or NO_LIMITS) != link.limits:
        yield "limits"
    if declared.labels is not None and declared.labels != plain_labels(link):
        yield "labels"
    if link.labels.get(OWNER_LABEL, "") != owner:
        yield "owner"


def is_program(
    source: ProgramSource, slot: Slot, link: Link, known: RecordedLink | None, digest: str | None
) -> bool:
    """Whether a slot of a link holds the program of a source."""
    info = link.programs.get(slot)
    if info is None:
        return False
    match source:
        case ById(identifier):
            return identifier == info.id
        case ByTag(tag):
            return tag == info.tag
        case FromSource() | FromObject():
            # the kernel's tag does not cover maps and the constants in them
            return known is not None and known.digests.get(slot.name.lower()) == digest
        case _:
            with open_sources({slot: source}) as fds:
                return syscalls.program_info(fds[slot]).id == info.id


def is_payload(name: str | None, link: Link) -> bool:
    """Whether a link's payload map has this name or id; None means no payload."""
    if name is None or not link.payload_map:
        return name is None and not link.payload_map
    if name == str(link.payload_map):
        return True

    try:
        with link_maps.map_of(link, name) as found:
            return found.info.id == link.payload_map
    except ProgramError:
        return False


def map_steps(differences: Sequence[tuple[Match, str, MapDifference]]) -> Iterator[Step]:
    """The steps that change maps."""
    for match, name, difference in differences:
        link = match.link.id if match.link else None
        shape = difference.map.format
        for entry in difference.entries:
            key = shape.key(entry.key)
            if entry.after is None:
                yield Step(StepAction.DELETE, match.declared.name, link, map=name, key=key)
            else:
                value = shape.value(entry.after)
                yield Step(
                    StepAction.SET, match.declared.name, link, map=name, key=key, value=value
                )


def link_steps(plan: Plan) -> Iterator[Step]:
    """The steps that make and swap links."""
    for match in plan.matches:
        declared = match.declared
        if match.link is None:
            yield Step(StepAction.ATTACH, declared.name, None, declared=declared)
        elif match.changes:
            yield Step(
                StepAction.SWAP, declared.name, match.link.id, match.changes, declared=declared
            )


def confirm_steps(plan: Plan) -> Iterator[Step]:
    """The steps that keep swaps which wait for it."""
    for match in plan.matches if plan.terms.confirm else ():
        if match.link is not None and match.waits and match.kept:
            yield Step(StepAction.CONFIRM, match.declared.name, match.link.id)


def rename_steps(plan: Plan) -> Iterator[Step]:
    """The steps that give existing links their names."""
    for match in plan.matches:
        if match.link is None or (match.name_taken and plan.deferred):
            continue
        if match.renamed:
            yield Step(StepAction.RENAME, match.declared.name, match.link.id)


def detach_steps(plan: Plan) -> Iterator[Step]:
    """The steps that detach links."""
    for name, link in () if plan.deferred else plan.surplus:
        yield Step(StepAction.DETACH, name, link.id)
