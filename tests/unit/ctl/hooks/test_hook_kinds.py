# SPDX-License-Identifier: GPL-2.0
"""A kind of hook is one file and its place in the list of kinds: here is another one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from rich.console import Console

from ipttctl import hooks
from ipttctl.errors import UsageError
from ipttctl.events.records import decode_events
from ipttctl.hooks import HookOptions, check_slots, chosen, event_pattern
from ipttctl.hooks.hook import Hook, HookChoice, HookIdentity
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.show import render_json, render_text
from ipttctl.show.event_blocks import EventBlocks
from ipttctl.show.event_table import EventTable
from ipttctl.show.link_table import print_links
from ipttctl.state import save_state
from ipttctl.state.file import read_state, state_object
from ipttctl.system.namespace_names import NameAt
from ipttproto import Command, LinkFlag, Slot, parse_batch
from tests.unit.ctl.support import FakeModule, batch_payload, event, joined, link

if TYPE_CHECKING:
    from ipttctl.events.records import EventRecord

NUMBER, EVENT = 9, 99
COLOURS = ("red", "blue")


@dataclass(frozen=True)
class Toy(Hook):
    """A hook with a colour, which is sent as its family."""

    colour: str

    KIND = NUMBER
    SLOTS = (Slot.EXIT,)
    EVENTS = frozenset({EVENT})  # type: ignore[arg-type]  # the protocol does not know it
    TITLE = "toys"
    SYNTAX = "toy:COLOUR"
    PATTERNS = ("toy",)

    def __str__(self) -> str:
        return f"toy:{self.colour}"

    @classmethod
    def means(cls, text: str) -> bool:
        """Whether the text begins with the kind's name."""
        return text.startswith("toy")

    @classmethod
    def chosen(cls, options: HookChoice) -> Self:
        """The hook of a colour."""
        _, _, colour = options.hook.partition(":")
        if colour not in COLOURS:
            raise UsageError(f"there is no toy '{colour}'")
        return cls(colour)

    def given(self) -> dict[str, Any]:
        """The name of the hook."""
        return {"hook": str(self)}

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The kind's number and the colour's."""
        del opened
        return {"hook": self.KIND, "family": COLOURS.index(self.colour)}

    def identity(self) -> HookIdentity:
        """The same numbers."""
        return self.KIND, COLOURS.index(self.colour)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The hook of the colour with this number."""
        return cls(COLOURS[attributes["family"]])

    def fields(self, names: NameAt | None) -> Iterator[str]:
        """The colour again."""
        del names
        yield f"colour={self.colour}"

    @classmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """The decision of an event."""
        del crossed
        return f"toy=[mark={record.mark}]"

    @classmethod
    def heading(cls, record: EventRecord) -> str:
        """The toy of an event."""
        return f"toy of link {record.link}"

    @classmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """The mark of an event."""
        yield f"marked {record.mark}"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put toys at the end of the list of kinds."""
    monkeypatch.setattr(hooks, "KINDS", (*hooks.KINDS, Toy))


def told(**changes: Any) -> dict[str, Any]:
    """A persistent link at a toy, as described by the module."""
    program = {"program": [{"slot": Slot.EXIT, "id": 7, "tag": bytes(8), "name": "x"}]}
    flags = int(LinkFlag.PERSISTENT)
    return link(hook=NUMBER, family=1, flags=flags, programs=program, **changes)


def test_it_is_chosen() -> None:
    assert chosen(HookOptions(hook="toy:blue")) == Toy("blue")
    with pytest.raises(UsageError, match="no toy 'green'"):
        chosen(HookOptions(hook="toy:green"))
    with pytest.raises(UsageError, match="--device does not go with toys; use it with --hook nf:"):
        chosen(HookOptions(hook="toy:blue", device="eth0"))
    with pytest.raises(UsageError, match="has no slot 'entry'; it has: exit"):
        check_slots(Toy("blue"), [Slot.ENTRY])
    with pytest.raises(
        UsageError,
        match=r"write table or nf:\S+ or chain\S+ or spine\S+ or journey\S+ or toy:COLOUR",
    ):
        chosen(HookOptions(hook="game"))


def test_it_attaches_and_prints(module: FakeModule) -> None:
    module.handlers[Command.ATTACH] = lambda *_: [told()]
    with Controller(module.connect) as controller:
        made = controller.attach(Toy("blue"), ProgramSet({Slot.EXIT: 7}), persistent=True)
    [asked] = module.requested(Command.ATTACH)
    assert (asked["hook"], asked["family"], asked["flags"]) == (NUMBER, 1, LinkFlag.PERSISTENT)
    assert made.hook == Toy("blue")
    assert " hook=toy:blue colour=blue exit=7(x) " in render_text.link_line(made)
    shown = render_json.link_object(made)
    assert (shown["hook"], shown["netns"], shown["armed"]) == ("toy:blue", None, [])
    console = Console(file=io.StringIO(), width=200)
    print_links([made], {}, console)
    assert isinstance(console.file, io.StringIO)
    assert "toy:blue" in console.file.getvalue()


def test_its_events_are_shown_and_chosen() -> None:
    batch = parse_batch(batch_payload([event(kind=EVENT, mark=5), event()], sequence=1))
    [record] = decode_events(batch.select(event_pattern("toy").wanted(batch.events)))
    assert str(EventTable().lines(joined(record))[0]).endswith(" toy=[mark=5]")
    heading, *_, line = map(str, EventBlocks(80).lines(joined(record)))
    assert heading.startswith(f"toy of link {record.link} ")
    assert line.endswith(" marked 5")
    with pytest.raises(UsageError, match=r"use table, nf, nf:.*, toy or one of prerouting"):
        event_pattern("game")


def test_it_is_declared_and_saved(module: FakeModule, tmp_path: Path) -> None:
    file, record = tmp_path / "links.yaml", tmp_path / "record" / "declared.json"
    file.write_text("links: {one: {hook: 'toy:blue', id: {exit: 7}}}")
    [declared] = read_state(str(file)).links
    there = Link.from_attributes(told())
    assert declared.hook.identity() == there.hook.identity()
    module.handlers[Command.GET] = lambda *_: [told()]
    with Controller(module.connect) as controller:
        saved = save_state(controller, record=record)
    [written] = state_object(saved.state)["links"].values()
    assert written == {"link": 3, "hook": "toy:blue", "id": {"exit": 7}}
