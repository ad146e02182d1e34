# SPDX-License-Identifier: GPL-2.0
"""Shadows: verdicts that are compared with those of a link, and not used."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.errors import ExpectationError, KernelError, SwapWaitingError
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, ProgramSet
from ipttctl.link.streams import EventStream
from ipttproto import Action, EventFlag, Kind, NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.maps import PERCPU_ARRAY, one_element_map
from tests.kernel.support.network import Namespace
from tests.kernel.support.nf import NF_ACCEPT, NF_DROP, attach, socket_filter
from tests.kernel.support.shadows import dropping, exchange, quiet_place

HOOK = "nf:inet4/output"
EACH = 5


@pytest.fixture
def place() -> Iterator[Namespace]:
    with quiet_place() as made:
        yield made


def packets(program: Program) -> ProgramSet:
    return ProgramSet({Slot.PACKET: program.fd})


def received(stream: EventStream) -> list[EventRecord]:
    """All events until now; AssertionError if one was lost."""
    records = [record for batch in stream.drain() for record in decode_events(batch)]
    assert stream.losses.events == 0, stream.losses
    return records


# --- verdicts -------------------------------------------------------------------------------------


def test_verdicts_are_compared_and_not_used(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """The link drops ports 1 and 2, its shadow 2 and 3: the packets meet the link's verdicts."""
    live = socket_filter(make_program, dropping(1, 2), name="live")
    other = socket_filter(make_program, dropping(2, 3), name="other")
    link = attach(controller, live, HOOK, place, mode=NfMode.FILTER, report_drops=True)
    with controller.events() as stream, controller.link_changes() as changes:
        shadowed = controller.shadow(link.id, packets(other))
        assert shadowed.shadow is not None
        assert shadowed.shadow.programs[Slot.PACKET].id == other.id
        assert (shadowed.generation, shadowed.programs) == (1, link.programs)
        place.call(exchange, {1: 0, 2: 0, 3: EACH, 4: EACH}, EACH)
        records = received(stream)
        now = controller.link(link.id)
        (told,) = changes.read(5)
    assert (told.change, told.link.shadow) == (Change.CHANGED, shadowed.shadow)
    stats = now.stats
    assert (stats.packets, stats.selected, stats.drops) == (4 * EACH, 4 * EACH, 2 * EACH)
    assert (stats.agreed, stats.disagreed) == (2 * EACH, 2 * EACH)
    assert stats.slots[Slot.PACKET].runs == stats.shadow_runs == 4 * EACH
    # its own events as without a shadow, and one for each disagreement
    drops = [record for record in records if record.kind == Kind.PACKET]
    assert [(d.verdict, d.dport) for d in drops] == [(NF_DROP, 1)] * EACH + [(NF_DROP, 2)] * EACH
    differing = [record for record in records if record.kind == Kind.DISAGREE]
    assert [(d.dport, d.verdict, d.verdict_data) for d in differing] == [
        *[(1, NF_DROP, NF_ACCEPT)] * EACH,
        *[(3, NF_ACCEPT, NF_DROP)] * EACH,
    ]
    assert {(d.link, d.generation, d.priority) for d in differing} == {(link.id, 1, 0)}
    assert {d.netns for d in differing} == {place.inode}
    assert stats.events == len(records) == 4 * EACH


def test_a_shadow_has_its_own_filter_and_payload(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """A packet that both filters pass over is not compared; a payload is of a run."""
    live = socket_filter(make_program, asm.returning(0))
    with one_element_map(PERCPU_ARRAY) as payload:
        note = asm.look_up(payload, 0) + asm.jump_if_equal(asm.R0, 0, 1)
        code = note + asm.store_number(asm.R0, 0, 7) + asm.returning(1)
        other = socket_filter(make_program, code)
        hook = NfHook.parse(HOOK, netns=place.path, mode=NfMode.FILTER)
        filtered = ProgramSet(
            {Slot.PACKET: live.fd}, filter=compile_filter("udp dst port 1 or udp dst port 2")
        )
        link = controller.attach(hook, filtered)
        shadow = ProgramSet(
            {Slot.PACKET: other.fd},
            filter=compile_filter("udp dst port 2 or udp dst port 3"),
            payload=payload,
        )
        with controller.events() as stream:
            controller.shadow(link.id, shadow)
            place.call(exchange, {1: 0, 2: 0, 3: EACH, 4: EACH}, EACH)
            records = received(stream)
        stats = controller.detach(link.id).stats
    assert (stats.packets, stats.selected, stats.drops) == (4 * EACH, 2 * EACH, 2 * EACH)
    assert (stats.agreed, stats.disagreed, stats.shadow_runs) == (EACH, 2 * EACH, 2 * EACH)
    seven = (7).to_bytes(8, "little")
    assert [(r.dport, r.verdict, r.verdict_data, r.payload) for r in records] == [
        *[(1, NF_DROP, NF_ACCEPT, b"")] * EACH,
        *[(2, NF_DROP, NF_ACCEPT, seven)] * EACH,
    ]
    assert [bool(r.flags & EventFlag.PAYLOAD) for r in records] == [False] * EACH + [True] * EACH


# --- promoted and dropped -------------------------------------------------------------------------


def test_promoted_with_a_generation_of_its_own(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    live = socket_filter(make_program, dropping(1), name="live")
    other = socket_filter(make_program, dropping(2), name="other")
    link = attach(controller, live, HOOK, place, mode=NfMode.FILTER)
    shadowed = controller.shadow(link.id, packets(other), labels={"version": "2"})
    assert shadowed.shadow is not None
    number = shadowed.shadow.number
    place.call(exchange, {1: 0, 2: EACH, 3: EACH}, EACH)
    for generation, expected in ((2, number), (1, number + 1)):
        with pytest.raises(ExpectationError, match="than expected"):
            controller.promote(link.id, expect_generation=generation, expect_shadow=expected)
    assert controller.link(link.id).shadow == shadowed.shadow
    with controller.link_changes() as changes:
        promoted = controller.promote(
            link.id, expect_generation=1, expect_shadow=number, reason="it agrees"
        )
        (told,) = changes.read(5)
    assert (told.change, told.link.generation) == (Change.SWAPPED, 2)
    assert (promoted.generation, promoted.shadow) == (2, None)
    assert promoted.programs[Slot.PACKET].id == other.id
    assert promoted.labels == {"version": "2"}
    # the counters of the last shadow stay until there is another one
    assert (promoted.stats.agreed, promoted.stats.disagreed) == (EACH, 2 * EACH)
    place.call(exchange, {1: EACH, 2: 0}, EACH)
    now = controller.link(link.id)
    assert (now.stats.agreed, now.stats.disagreed) == (EACH, 2 * EACH)
    assert now.stats.drops == 2 * EACH
    entry = controller.history(link.id)[-1]
    assert (entry.generation, entry.action, entry.reason) == (2, Action.PROMOTE, "it agrees")
    assert entry.pid > 0
    with pytest.raises(KernelError, match="the link has no shadow") as refused:
        controller.promote(link.id)
    assert refused.value.errno == errno.ENODATA

    # the next one begins at 0, and is dropped
    controller.shadow(link.id, packets(live))
    place.call(exchange, {3: EACH}, EACH)
    dropped = controller.drop_shadow(link.id)
    assert (dropped.shadow, dropped.generation) == (None, 2)
    assert (dropped.stats.agreed, dropped.stats.disagreed) == (EACH, 0)
    place.call(exchange, {1: EACH, 2: 0}, EACH)
    assert controller.link(link.id).stats.agreed == EACH
    # and a link without a shadow can be swapped
    assert controller.swap(link.id, packets(live)).generation == 3


def test_a_promotion_is_rolled_back_unless_confirmed(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    live = socket_filter(make_program, dropping(1))
    other = socket_filter(make_program, dropping(2))
    link = attach(controller, live, HOOK, place, mode=NfMode.FILTER)
    controller.shadow(link.id, packets(other))
    promoted = controller.promote(link.id, rollback_after=60)
    assert promoted.rollback_in is not None
    with pytest.raises(SwapWaitingError, match="waits to be confirmed"):
        controller.shadow(link.id, packets(other))
    controller.confirm(link.id, expect_generation=2)
    # what is put back runs without the shadow that it had
    controller.shadow(link.id, packets(live))
    controller.promote(link.id, rollback_after=0.1)
    wait_for(lambda: controller.link(link.id).generation == 4, what="it is rolled back")
    assert controller.link(link.id).programs[Slot.PACKET].id == other.id
    place.call(exchange, {1: EACH, 2: 0}, EACH)
    assert controller.link(link.id).stats.agreed == 0
    actions = [entry.action for entry in controller.history(link.id)]
    assert actions == [Action.ATTACH, Action.PROMOTE, Action.PROMOTE, Action.ROLLBACK]
