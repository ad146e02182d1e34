# SPDX-License-Identifier: GPL-2.0
"""Journeys: the steps of followed packets between hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import ipttproto
from ipttctl.errors import UsageError
from ipttctl.escape import word
from ipttctl.events import describe
from ipttctl.events.records import EventRecord
from ipttctl.hooks.hook import Hook, HookChoice, HookIdentity
from ipttctl.system.namespace_names import NameAt
from ipttproto import JOURNEY_SLOTS, Kind, Slot

_NAME: Final = "journey"
_BOTH_WAYS: Final = f"{_NAME}:both-ways"
_ARMED: Final = 32
_OF_FRAGMENTS: Final = frozenset({Kind.JOURNEY_WAITS, Kind.JOURNEY_WHOLE})
#: what the attribute journey-ways says
_ONE, _BOTH = 1, 2


@dataclass(frozen=True)
class JourneyHook(Hook):
    """The steps of packets that are followed: copies, devices, sockets, drops and ends.

    Links at tables, chains and the spine can be on a journey (``Controller.attach``). A packet that
    one of them selects is followed from there on: all of them get it, wherever it comes by,
    whatever NAT makes of its addresses, and programs of the journey run at its steps in between.
    With ``both_ways`` answers are followed too: the packets of the other direction of the
    connections of followed packets.

    As reported by the module, ``armed`` says whether steps are watched. ``followed`` and ``lost``
    count packets of all journeys so far: those that were followed, with their copies, and those
    that came by nowhere for a long time. ``unfollowed`` counts how often there was no room to
    follow one, which nothing remembers: the same packet counts at its next hook, table and chain
    again. ``displaced`` counts directions of connections in a namespace on which answers were not
    expected any more, for lack of room.
    """

    both_ways: bool = False
    armed: bool = False
    followed: int = 0
    unfollowed: int = 0
    lost: int = 0
    displaced: int = 0

    KIND: ClassVar[int] = ipttproto.Hook.JOURNEY
    SLOTS: ClassVar[tuple[Slot, ...]] = JOURNEY_SLOTS
    EVENTS: ClassVar[frozenset[Kind]] = frozenset(
        {
            *(Kind.JOURNEY_COPY, Kind.JOURNEY_SENT, Kind.JOURNEY_RECEIVED, Kind.JOURNEY_SOCKET),
            *(Kind.JOURNEY_JOINED, Kind.JOURNEY_DROPPED, Kind.JOURNEY_FREED, Kind.JOURNEY_LOST),
            *(Kind.JOURNEY_WAITS, Kind.JOURNEY_WHOLE),
        }
    )
    TITLE: ClassVar[str] = "journeys"
    SYNTAX: ClassVar[str] = f"{_NAME}[:both-ways]"
    PATTERNS: ClassVar[tuple[str, ...]] = (_NAME,)

    def __str__(self) -> str:
        return _BOTH_WAYS if self.both_ways else _NAME

    @classmethod
    def means(cls, text: str) -> bool:
        """Whether the text is ``journey``, alone or with something behind a colon."""
        return text.partition(":")[0] == _NAME

    @classmethod
    def chosen(cls, options: HookChoice) -> Self:
        """Make the hook; no option goes with it.

        Raises:
            UsageError: a place is named.
        """
        if options.hook not in {_NAME, _BOTH_WAYS}:
            raise UsageError(f"'{options.hook}' is not a journey", f"write {_NAME} or {_BOTH_WAYS}")
        return cls(both_ways=options.hook == _BOTH_WAYS)

    def given(self) -> dict[str, Any]:
        """The options for a file."""
        return {"hook": str(self)}

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The hook's part of an attach request."""
        del opened
        request = {"hook": self.KIND}
        return request | {"journey-ways": _BOTH} if self.both_ways else request

    def identity(self) -> HookIdentity:
        """The number of the kind, and the number of ways."""
        return (self.KIND, _BOTH if self.both_ways else _ONE)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Make the hook that a message describes."""
        return cls(
            both_ways=attributes.get("journey-ways") == _BOTH,
            armed=bool(attributes.get("armed", 0) & _ARMED),
            followed=attributes.get("journey-followed", 0),
            unfollowed=attributes.get("journey-unfollowed", 0),
            lost=attributes.get("journey-lost", 0),
            displaced=attributes.get("journey-displaced", 0),
        )

    def misses(self, link: int) -> Iterator[str]:
        """The reason why no step is seen."""
        del link
        if not self.armed:
            yield "steps of packets are not watched"

    # --- in print ---------------------------------------------------------------------------------

    def state_fields(self) -> Iterator[str]:
        """Whether steps are watched, and the numbers of packets."""
        yield f"armed={'journeys' if self.armed else 'none'}"
        yield f"journey.followed={self.followed}"
        if self.unfollowed:
            yield f"journey.unfollowed={self.unfollowed}"
        if self.lost:
            yield f"journey.lost={self.lost}"
        if self.displaced:
            yield f"journey.displaced={self.displaced}"

    def values(self, names: NameAt | None) -> dict[str, Any]:
        """The keys of a link's JSON."""
        del names
        return {
            "journey_followed": self.followed,
            "journey_unfollowed": self.unfollowed,
            "journey_lost": self.lost,
            "journey_both_ways": self.both_ways,
            "journey_displaced": self.displaced,
            "armed": ["journeys"] if self.armed else [],
        }

    # --- its events -------------------------------------------------------------------------------

    @classmethod
    def event_values(cls, record: EventRecord) -> dict[str, Any]:
        """The other packet or the whole, the drop's reason and function, or the socket."""
        of_socket = record.kind == Kind.JOURNEY_SOCKET
        dropped = record.kind == Kind.JOURNEY_DROPPED
        return {
            "copy_of": record.rule_handle if record.kind == Kind.JOURNEY_COPY else None,
            "joined": (record.rule_handle or None) if record.kind == Kind.JOURNEY_JOINED else None,
            "whole": record.rule_handle if record.kind in _OF_FRAGMENTS else None,
            "socket_inode": (record.rule_handle or None) if of_socket else None,
            "socket_cookie": (record.table_handle or None) if of_socket else None,
            "socket_uid": record.verdict_data if of_socket else None,
            "drop_reason": record.verdict_data if dropped else None,
            "function": (describe.text(record.chain) or None) if dropped else None,
            "module": (describe.text(record.table) or None) if dropped else None,
        }

    @classmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """``journey=[...]``."""
        devices = f"in={word(record.in_name)} out={word(record.out_name)}{crossed}"
        return f"journey=[{' '.join(_outcome(record))} {devices}]"

    @classmethod
    def heading(cls, record: EventRecord) -> str:
        """The kind of hook."""
        del record
        return _NAME

    @classmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """The step."""
        yield from _outcome(record)


def _outcome(record: EventRecord) -> Iterator[str]:
    yield describe.kind(record).removeprefix(f"{_NAME}_")
    if record.kind == Kind.JOURNEY_COPY:
        yield f"of={record.rule_handle}"
    elif record.kind == Kind.JOURNEY_JOINED:
        yield f"into={record.rule_handle}"
    elif record.kind in _OF_FRAGMENTS:
        yield f"whole={record.rule_handle}"
    elif record.kind == Kind.JOURNEY_SOCKET:
        yield f"inode={record.rule_handle}"
        yield f"uid={record.verdict_data}"
    elif record.kind == Kind.JOURNEY_DROPPED:
        yield f"reason={record.verdict_data}"
        yield f"function={word(record.chain)}"
        if record.table:
            yield f"module={word(record.table)}"
