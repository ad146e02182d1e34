# SPDX-License-Identifier: GPL-2.0
"""Shadows that the module promotes by itself, when conditions on their verdicts are met."""

from __future__ import annotations

import errno
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.errors import KernelError
from ipttctl.hooks.nf import NfHook
from ipttctl.link.condition import Condition
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, ProgramSet
from ipttctl.link.wire import Connection
from ipttproto import Action, Command, NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import (
    COMMAND_TIMEOUT,
    load_module,
    settled,
    unload_module,
    wait_for,
)
from tests.kernel.support.network import Namespace, event, flood_udp
from tests.kernel.support.nf import attach, socket_filter
from tests.kernel.support.shadows import dropping, exchange, quiet_place

pytestmark = pytest.mark.usefixtures("no_links")

fork = multiprocessing.get_context("fork")
HOOK = "nf:inet4/output"
#: seconds in which a promotion that is to come would have come
WHILE = 1.5


@pytest.fixture
def place() -> Iterator[Namespace]:
    with quiet_place() as made:
        yield made


@pytest.fixture
def live(make_program: MakeProgram) -> Program:
    return socket_filter(make_program, dropping(1), name="live")


@pytest.fixture
def other(make_program: MakeProgram) -> Program:
    """A program that disagrees about port 2 alone."""
    return socket_filter(make_program, dropping(1, 2), name="other")


def packets(program: Program) -> ProgramSet:
    return ProgramSet({Slot.PACKET: program.fd})


def conditions(*texts: str) -> list[Condition]:
    return [Condition.parse(text) for text in texts]


def promoted(controller: Controller, link: Link) -> Link:
    """The link once its shadow was promoted."""
    wait_for(lambda: controller.link(link.id).generation == 2, COMMAND_TIMEOUT, "the promotion")
    return controller.link(link.id)


def test_a_promotion_needs_no_controller(
    place: Namespace, controller: Controller, live: Program, other: Program
) -> None:
    """Nor anybody who asks: it is the module's, and history and observers are told so."""
    wanted = conditions("disagreements < 1/10 min 20", "agreements > 5 for 200ms")

    def give() -> None:
        with Controller() as mine:
            hook = NfHook.parse(HOOK, netns=place.path, mode=NfMode.FILTER)
            link = mine.attach(hook, packets(live), persistent=True, name="web")
            given = mine.shadow(link.id, packets(other), promote_if=wanted)
            assert given.shadow is not None
            assert list(given.shadow.promote_if) == wanted

    with controller.link_changes() as changes:
        giver = fork.Process(target=give)
        giver.start()
        giver.join(COMMAND_TIMEOUT)
        assert giver.exitcode == 0
        link = controller.link("web")
        # all agree, and they are not enough
        place.call(exchange, {3: 10}, 10)
        time.sleep(WHILE)
        assert controller.link("web").shadow is not None

        def sent() -> bool:
            place.call(exchange, {3: 10}, 10)
            return controller.link("web").generation == 2

        wait_for(sent, COMMAND_TIMEOUT, "the promotion")
        now = controller.link("web")
        told = [(c.change, c.link.generation) for c in changes.read(5)]
    assert told[-1] == (Change.SWAPPED, 2)
    assert (now.shadow, now.programs[Slot.PACKET].id) == (None, other.id)
    assert now.stats.agreed >= 20
    assert now.stats.disagreed == 0
    entry = controller.history("web")[-1]
    assert (entry.action, entry.pid, entry.comm) == (Action.PROMOTE_IF, 0, "")
    place.call(exchange, {2: 0, 3: 3}, 3)
    assert controller.detach(link.id).stats.drops == 3


def test_no_packets_promote_nothing(
    place: Namespace, controller: Controller, live: Program, other: Program
) -> None:
    """Not even under conditions that nothing violates; packets that both pass over are none."""
    link = attach(controller, live, HOOK, place, mode=NfMode.FILTER)
    controller.shadow(
        link.id, packets(other), promote_if=conditions("disagreements < 1", "agreements < 1000")
    )
    time.sleep(WHILE)
    now = controller.link(link.id)
    assert (now.generation, now.shadow is None) == (1, False)
    # the first packet that is compared is enough for these
    place.call(exchange, {3: 1}, 1)
    assert promoted(controller, link).stats.agreed >= 1
    controller.detach(link.id)


def test_disagreements_keep_it_from_being_promoted_until_they_are_past(
    place: Namespace, controller: Controller, live: Program, other: Program
) -> None:
    link = attach(controller, live, HOOK, place, mode=NfMode.FILTER)
    place.call(exchange, {2: 2}, 2)
    wanted = conditions(f"disagreements < 1/10 for {WHILE}s min 5")
    controller.shadow(link.id, packets(other), promote_if=wanted)
    # one in two
    place.call(exchange, {2: 5, 3: 5}, 5)
    time.sleep(2 * WHILE)
    now = controller.link(link.id)
    assert (now.stats.agreed, now.stats.disagreed, now.generation) == (5, 5, 1)

    def agreeing() -> bool:
        place.call(exchange, {3: 5}, 5)
        return controller.link(link.id).generation == 2

    wait_for(agreeing, COMMAND_TIMEOUT, "a window without disagreements")
    assert controller.detach(link.id).stats.disagreed == 5


def test_no_packet_is_unseen_when_the_module_promotes(
    place: Namespace, controller: Controller, make_program: MakeProgram
) -> None:
    yes = socket_filter(make_program, asm.returning(1))
    place.iptables("-A", "OUTPUT", "-j", "ACCEPT")
    link = attach(controller, yes, f"{HOOK}@raw", place, mode=NfMode.FILTER)
    stop = event()
    flood = place.start(flood_udp, "127.0.0.1", 9, stop)
    generation = 1
    for _ in range(8):
        controller.shadow(
            link.id, packets(yes), promote_if=conditions("disagreements < 1 for 100ms min 20")
        )
        generation += 1
        wait_for(
            lambda: controller.link(link.id).generation == generation,  # noqa: B023 - at once
            COMMAND_TIMEOUT,
            "the promotion",
        )
    stop.set()
    flood.join(COMMAND_TIMEOUT)
    stats = settled(lambda: controller.link(link.id)).stats
    assert place.counted("OUTPUT") == stats.packets == stats.slots[Slot.PACKET].runs > 160
    assert (stats.disagreed, stats.drops) == (0, 0)
    controller.detach(link.id)


def test_ended_while_it_waits(place: Namespace, live: Program, other: Program) -> None:
    """Promoted or dropped on request, detached, owner gone; then the module unloads at once."""
    wanted = conditions("disagreements < 1 for 100ms")
    for end in ("promote", "drop_shadow", "detach", "close"):
        with Controller() as controller:
            link = attach(controller, live, HOOK, place, mode=NfMode.FILTER)
            controller.shadow(link.id, packets(other), promote_if=wanted)
            place.call(exchange, {3: 2}, 2)
            if end != "close":
                # the module may be faster: then there is no shadow any more
                with suppress(KernelError):
                    assert getattr(controller, end)(link.id).generation in {1, 2}
                gone = end == "detach"
                assert [one.shadow for one in controller.links()] == ([] if gone else [None])
    unload_module()
    load_module()
    with Controller() as controller:
        assert controller.links() == []


@pytest.mark.parametrize(
    ("nests", "number", "words"),
    [
        ([{"counter": 6, "comparison": 1, "threshold": 1}], errno.EINVAL, "agreements and dis"),
        ([{"counter": 9, "comparison": 1, "threshold": 0}], errno.EINVAL, "decides nothing"),
        ([{"counter": 9, "comparison": 1, "threshold": 1}] * 9, errno.E2BIG, "more conditions"),
    ],
)
def test_conditions_that_make_no_sense(
    controller: Controller,
    live: Program,
    other: Program,
    nests: list[dict[str, Any]],
    number: int,
    words: str,
) -> None:
    link = attach(controller, live, HOOK, mode=NfMode.FILTER)
    with Connection.open() as connection:
        request = {"link": link.id, "programs": packets(other).attributes(), "promote-if": nests}
        with pytest.raises(KernelError, match=words) as refused:
            connection.request(Command.SHADOW, request, "giving a shadow")
    assert refused.value.errno == number
    assert (refused.value.attribute or "").startswith("promote-if")
    # nor does a swap wait for the verdicts of a shadow, which it cannot have
    with pytest.raises(KernelError, match="has no shadow, whose counters") as guarded:
        controller.swap(link.id, packets(other), guards=conditions("disagreements < 1"))
    assert (guarded.value.errno, guarded.value.attribute) == (errno.EINVAL, "guard")
    assert controller.link(link.id).generation == 1


def test_on_the_command_line(
    place: Namespace, controller: Controller, live: Program, other: Program
) -> None:
    link = attach(controller, live, HOOK, place, mode=NfMode.FILTER)
    line = ("swap", str(link.id), "--shadow", "--id", f"packet={other.id}", "-o", "json")
    given = ipttctl(*line, "--promote-if", "disagreements < 1/10 for 200ms min 5")
    assert given.returncode == 0, given.stderr
    assert json.loads(given.stdout)["shadow"]["promote_if"] == [
        "disagreements < 1/10 for 200ms min 5 packets"
    ]
    shown = ipttctl("links", str(link.id)).stdout
    assert " shadow.promote-if=disagreements<1/10,for=200ms,min=5 " in shown

    def agreeing() -> bool:
        place.call(exchange, {3: 5}, 5)
        return controller.link(link.id).generation == 2

    wait_for(agreeing, COMMAND_TIMEOUT, "the promotion")
    assert " action=promote_if " in ipttctl("history", str(link.id)).stdout
    controller.detach(link.id)
