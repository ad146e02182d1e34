# SPDX-License-Identifier: GPL-2.0
"""Shadows under flood, when their links go, against others, and on the command line."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import KernelError
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, LinkStats, ProgramSet
from ipttproto import Action, Gone, NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl, running
from tests.kernel.support.kernel import (
    COMMAND_TIMEOUT,
    load_module,
    settled,
    unload_module,
    wait_for,
)
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Namespace, event, flood_udp
from tests.kernel.support.nf import attach, socket_filter
from tests.kernel.support.shadows import dropping, exchange, quiet_place

fork = multiprocessing.get_context("fork")
HOOK = "nf:inet4/output@raw"
PORT = 9
ROUNDS = 12
#: packets that pass between two changes
SOME = 100


@pytest.fixture
def place() -> Iterator[Namespace]:
    with quiet_place() as made:
        made.iptables("-A", "OUTPUT", "-j", "ACCEPT")
        yield made


def packets(program: Program) -> ProgramSet:
    return ProgramSet({Slot.PACKET: program.fd})


def counted(place: Namespace) -> int:
    """The packets that came as far as the rule behind the link."""
    return place.counted("OUTPUT")


def compared(stats: LinkStats) -> int:
    return stats.agreed + stats.disagreed


def after_some(controller: Controller, link: Link, count: Callable[[LinkStats], int]) -> Link:
    """The link, once ``SOME`` more have been counted."""
    enough = count(controller.link(link.id).stats) + SOME

    def look() -> Link | None:
        now = controller.link(link.id)
        return now if count(now.stats) >= enough else None

    found = wait_for(look, COMMAND_TIMEOUT, "packets")
    assert found
    return found


# --- under flood ----------------------------------------------------------------------------------


def test_no_packet_is_unseen_while_shadows_come_and_go(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Every packet meets one live program, and each shadow those that it was compared with.

    Each program notes its runs in a map of its own: as a shadow, and, promoted, as the link's.
    """
    with ExitStack() as stack:
        maps = [stack.enter_context(one_element_map()) for _ in range(ROUNDS + 1)]
        sets = [packets(socket_filter(make_program, asm.counting(fd))) for fd in maps]
        hook = NfHook.parse(HOOK, netns=place.path, mode=NfMode.FILTER)
        link = controller.attach(hook, sets[0])
        stop = event()
        flood = place.start(flood_udp, "127.0.0.1", PORT, stop)
        shadowed, promoted = 0, 0
        for number in range(1, ROUNDS + 1):
            controller.shadow(link.id, sets[number])
            after_some(controller, link, compared)
            # half of them are dropped instead
            change = controller.promote if number % 2 else controller.drop_shadow
            stats = change(link.id).stats
            promoted += number % 2
            assert stats.disagreed == 0
            assert stats.shadow_runs == stats.agreed == compared(stats)
            shadowed += stats.shadow_runs
            after_some(controller, link, lambda stats: stats.packets)
            # nobody meets the shadow any more
            assert controller.link(link.id).stats.shadow_runs == stats.shadow_runs
        stop.set()
        flood.join(COMMAND_TIMEOUT)
        now = settled(lambda: controller.link(link.id))
        runs = [element(fd) for fd in maps]
        passed = counted(place)
    print(f"{now.stats}, {shadowed} runs of shadows, by program {runs}, {passed} at the rule")
    assert now.generation == 1 + promoted
    assert passed == now.stats.packets == now.stats.slots[Slot.PACKET].runs > ROUNDS * SOME
    assert sum(runs) == passed + shadowed
    assert now.stats.drops == 0


def test_swaps_of_others_go_on_meanwhile(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """A link with a shadow beside one that is swapped, at the same hook, under flood."""
    yes = socket_filter(make_program, asm.returning(1))
    link = attach(controller, yes, HOOK, place, mode=NfMode.FILTER)
    other = attach(controller, yes, HOOK, place, mode=NfMode.FILTER)
    no = socket_filter(make_program, asm.returning(0))
    controller.shadow(link.id, packets(no))
    stop = event()
    flood = place.start(flood_udp, "127.0.0.1", PORT, stop)
    for number in range(ROUNDS):
        controller.swap(other.id, packets(yes))
        assert after_some(controller, link, compared).stats.agreed == 0, number
    stop.set()
    flood.join(COMMAND_TIMEOUT)
    stats = settled(lambda: controller.link(link.id)).stats
    assert stats.packets == stats.disagreed == stats.events == stats.shadow_runs
    assert stats.drops == 0
    assert controller.link(other.id).generation == 1 + ROUNDS


# --- links that go --------------------------------------------------------------------------------


def _own(program: int, path: str, channel: Any) -> None:
    """Own a link with a shadow until killed."""
    with Controller() as controller, Program.from_id(program) as loaded:
        hook = NfHook.parse(HOOK, netns=path, mode=NfMode.FILTER)
        link = controller.attach(hook, packets(loaded))
        channel.send(controller.shadow(link.id, packets(loaded)).id)
        signal.pause()


def test_a_shadow_goes_with_its_link(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Detached, or owned by a process that is killed, under flood; conftest sees what is left."""
    program = socket_filter(make_program, asm.returning(1))
    stop = event()
    flood = place.start(flood_udp, "127.0.0.1", PORT, stop)
    try:
        link = attach(controller, program, HOOK, place, mode=NfMode.FILTER)
        controller.shadow(link.id, packets(program))
        after_some(controller, link, compared)
        with pytest.raises(AssertionError, match="in use"):
            unload_module()
        gone = controller.detach(link.id)
        assert gone.shadow is not None
        assert compared(gone.stats) >= SOME
        ours, theirs = fork.Pipe()
        owner = fork.Process(target=_own, args=(program.id, str(place.path), theirs))
        owner.start()
        number = ours.recv()
        after_some(controller, controller.link(number), compared)
        owner.kill()
        owner.join()
        wait_for(lambda: controller.links() == [], what="the link is gone")
    finally:
        stop.set()
        flood.join(COMMAND_TIMEOUT)


def test_the_module_unloads_after_shadows(make_program: MakeProgram) -> None:
    """Right after the last link went, and is as good as new."""
    program = socket_filter(make_program, asm.returning(1))
    with Controller() as controller:
        link = attach(controller, program, HOOK, mode=NfMode.FILTER)
        controller.shadow(link.id, packets(program))
        controller.promote(link.id)
        controller.shadow(link.id, packets(program))
    unload_module()
    load_module()
    with Controller() as controller:
        assert controller.links() == []


def test_a_namespace_goes_from_under_a_shadow(
    controller: Controller, make_program: MakeProgram
) -> None:
    """The link is at no hook any more: its shadow stays, and can be promoted or dropped."""
    program = socket_filter(make_program, asm.returning(1))
    with quiet_place("leaves") as leaving:
        links = [attach(controller, program, HOOK, leaving, mode=NfMode.FILTER) for _ in range(2)]
        for link in links:
            controller.shadow(link.id, packets(program))
        leaving.call(exchange, {PORT: 5}, 5)
    wait_for(lambda: all(link.hook.gone == Gone.NETNS for link in controller.links()))
    assert [compared(link.stats) for link in controller.links()] == [5, 5]
    assert controller.promote(links[0].id).generation == 2
    assert controller.drop_shadow(links[1].id).shadow is None
    for link in links:
        controller.detach(link.id)


# --- owners ---------------------------------------------------------------------------------------


def test_an_exclusive_owner_decides(controller: Controller, make_program: MakeProgram) -> None:
    """Others need force, and it is told."""
    programs = packets(socket_filter(make_program, asm.returning(1)))
    hook = NfHook.parse(HOOK, mode=NfMode.FILTER)
    with Controller() as owner:
        link = owner.attach(hook, programs, exclusive=True)
        acts: dict[str, Callable[..., Link]] = {
            "shadow": lambda who, **how: who.shadow(link.id, programs, **how),
            "drop": lambda who, **how: who.drop_shadow(link.id, **how),
            "promote": lambda who, **how: who.promote(link.id, **how),
        }
        for forced, before, after in (
            ("shadow", None, "drop"),
            ("drop", "shadow", None),
            ("promote", "shadow", None),
        ):
            if before:
                acts[before](owner)
            with pytest.raises(KernelError, match="owns the link exclusively") as refused:
                acts[forced](controller)
            assert refused.value.errno == errno.EBUSY
            with controller.link_changes() as changes:
                acts[forced](controller, force=True)
                (told,) = changes.read(COMMAND_TIMEOUT)
            assert told.forced_pid == os.getpid()
            if after:
                acts[after](owner)
        owner.shadow(link.id, programs)
        assert owner.promote(link.id).generation == 3
        assert [entry.action for entry in controller.history(link.id)] == [
            Action.ATTACH,
            Action.PROMOTE,
            Action.PROMOTE,
        ]
    assert controller.links() == []


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.usefixtures("no_links")
def test_on_the_command_line(make_program: MakeProgram, place: Namespace) -> None:
    """A shadow is given, seen, promoted and dropped; the errors have their statuses."""
    live = socket_filter(make_program, dropping(1), name="live").id
    other = socket_filter(make_program, dropping(2), name="other").id
    where = ("--hook", HOOK, "--netns", place.name, "--mode", "filter")
    assert ipttctl("attach", *where, "--id", f"packet={live}", "--name", "web", "--persist")
    for line, words in (
        (("--rollback-after", "3s"), "--rollback-after does not go with --shadow"),
        (("--reason", "x"), "--reason does not go with --shadow"),
    ):
        wrong = ipttctl("swap", "web", "--shadow", "--id", f"packet={other}", *line)
        assert (wrong.returncode, words in wrong.stderr) == (2, True), wrong.stderr
    made = ipttctl("swap", "web", "--shadow", "--id", f"packet={other}", "-o", "json")
    assert made.returncode == 0, made.stderr
    shadow = json.loads(made.stdout)["shadow"]
    assert shadow["programs"]["packet"]["id"] == other
    with (
        running("events", "--link", "web", "-o", "json") as observer,
        running("events", "--link", "web") as lines,
    ):
        observer.wait_for_text("listening")
        lines.wait_for_text("listening")
        place.call(exchange, {1: 0, 2: 3, 3: 3}, 3)
        lines.wait_for_text("verdict=ACCEPT shadow=DROP]")
        wait_for(lambda: observer.out().count("\n") == 7, what="six disagreements")
        told = observer.finish()
    assert [(e["verdict"], e["shadow_verdict"], e["shadow"]) for e in told] == [
        *[("DROP", "ACCEPT", shadow["number"])] * 3,
        *[("ACCEPT", "DROP", shadow["number"])] * 3,
    ]
    shown = ipttctl("links", "web").stdout
    assert f" shadow.packet={other}(other) " in shown
    assert shown.endswith(" agreed=3 disagreed=6\n")
    late = ipttctl("promote", "web", "--expect-shadow", str(shadow["number"] + 1))
    assert (late.returncode, "another shadow than expected" in late.stderr) == (7, True)
    promoted = ipttctl(
        "promote",
        "web",
        "--expect-shadow",
        str(shadow["number"]),
        "--reason",
        "agreed",
        "-o",
        "json",
    )
    assert json.loads(promoted.stdout)["generation"] == 2
    assert " action=promote " in ipttctl("history", "web").stdout
    none = ipttctl("drop-shadow", "web")
    assert (none.returncode, "the link has no shadow" in none.stderr) == (1, True)
    assert ipttctl("swap", "web", "--shadow", "--id", f"packet={live}").returncode == 0
    dropped = json.loads(ipttctl("drop-shadow", "web", "-o", "json").stdout)
    assert (dropped["shadow"], dropped["generation"]) == (None, 2)
    assert ipttctl("detach", "web").returncode == 0


@pytest.mark.usefixtures("no_links")
def test_a_shadow_gets_copies_of_maps(controller: Controller, place: Namespace) -> None:
    """With --keep-maps: the same entries, in maps of its own, on which it goes on by itself."""
    with (
        one_element_map() as mine,
        one_element_map() as its,
        Program.load(asm.counting(mine), name="a", type=ProgramType.SOCKET_FILTER) as live,
        Program.load(asm.counting(its), name="b", type=ProgramType.SOCKET_FILTER) as other,
    ):
        link = attach(controller, live, HOOK, place, mode=NfMode.FILTER)
        place.call(exchange, {3: 4}, 4)
        line = ("swap", str(link.id), "--shadow", "--id", f"packet={other.id}")
        given = ipttctl(*line, "--keep-maps=test")
        assert given.returncode == 0, given.stderr
        assert (element(mine), element(its)) == (4, 4)
        place.call(exchange, {3: 4}, 4)
        assert (element(mine), element(its)) == (8, 8)
        assert ipttctl("drop-shadow", str(link.id)).returncode == 0
        # a program that shares the link's own map is refused
        shared = ipttctl("swap", str(link.id), "--shadow", "--id", f"packet={live.id}")
        assert (shared.returncode, "the shadow may write" in shared.stderr) == (1, True)
        controller.detach(link.id)
