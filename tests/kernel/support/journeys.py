# SPDX-License-Identifier: GPL-2.0
"""Journeys of a test, and the stories of their packets in a few words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipttctl.bpf.drop_reasons import DropReasons
from ipttctl.bpf.filters import compile_filter
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.families import NfFamily, hook_name
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.link.streams import EventStream
from ipttctl.stories.assemble import StoryAssembler
from ipttctl.stories.model import DeviceStep, Passage, SocketStep, Story, TunnelStep
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm


class Journey:
    """Links at all hooks, on one journey, and the stories of their packets."""

    def __init__(self, controller: Controller, program: int, *, both_ways: bool = False) -> None:
        self._controller = controller
        self._program = program
        self._links: list[int] = []
        self.link = self._made(JourneyHook(both_ways=both_ways), {})
        self.before = self.hook
        self.events: list[EventRecord] = []
        self.stories: list[Story] = []

    def follow(self, expression: str | None, *hooks: Hook, **options: Any) -> Link:
        """Follow packets from these hooks on, by default from all."""
        bytecode = None if expression is None else compile_filter(expression)
        for hook in hooks or (SpineHook(), ChainHook(), TableHook()):
            made = self._made(hook, {"filter": bytecode, **options}, self.link.id)
            assert made.journey == self.link.id
        return made

    def _made(self, hook: Hook, options: dict[str, Any], journey: int | None = None) -> Link:
        slots: dict[Slot, int] = dict.fromkeys(hook.SLOTS, self._program)
        slots.pop(Slot.ENTRY, None)
        link = self._controller.attach(hook, ProgramSet(slots, **options), journey=journey)
        self._links.append(link.id)
        return link

    @property
    def hook(self) -> JourneyHook:
        """The journey as it is. Its numbers count from when the module was loaded."""
        hook = self._controller.link(self.link.id).hook
        assert isinstance(hook, JourneyHook)
        return hook

    def end(self) -> JourneyHook:
        """Detach the links; the journey as it was before."""
        hook = self.hook
        for link in reversed(self._links):
            self._controller.detach(link)
        return hook

    def take(self, events: EventStream) -> None:
        """Make stories of the events that were emitted until now."""
        assembler = StoryAssembler()
        for batch in events.drain():
            records = decode_events(batch)
            self.events += records
            self.stories += assembler.add(records)
        self.stories += assembler.flush()
        self.stories.sort(key=lambda story: story.began)


@contextmanager
def following(
    controller: Controller,
    make_program: MakeProgram,
    expression: str | None,
    *hooks: Hook,
    both_ways: bool = False,
) -> Iterator[Journey]:
    """Follow packets meanwhile; their stories are there afterwards, in their order."""
    with controller.events() as events:
        journey = Journey(controller, make_program(asm.returning(1)).fd, both_ways=both_ways)
        journey.follow(expression, *hooks)
        yield journey
        hook = journey.end()
        journey.take(events)
        for count in ("unfollowed", "lost", "displaced"):
            assert getattr(hook, count) == getattr(journey.before, count)
        assert hook.both_ways == both_ways


def told(story: Story) -> list[str]:
    """The steps and the end of a story, a word or two for each."""
    words = []
    for step in story.steps:
        if isinstance(step, Passage):
            record = story.record(step.first)
            of_bridge = "bridge " if record.pf == NfFamily.BRIDGE else ""
            words.append(f"{of_bridge}{hook_name(record.pf, record.hook)}")
        elif isinstance(step, DeviceStep):
            record = story.record(step.at)
            device = record.out_name if step.sent else record.in_name
            words.append(f"{'to' if step.sent else 'from'} {device.rstrip(bytes(1)).decode()}")
        elif isinstance(step, TunnelStep):
            words.append("unpacked" if step.removed else "packed")
        elif isinstance(step, SocketStep):
            words.append("socket")
    return [*words, str(story.end.kind)]


def reason(story: Story) -> tuple[str | None, str]:
    """The kernel's reason for a drop, and the function."""
    names = DropReasons.of_kernel()
    end = story.record(story.end.at)
    return names.name(end.verdict_data) if names else None, end.chain.rstrip(b"\0").decode()
