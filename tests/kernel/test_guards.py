# SPDX-License-Identifier: GPL-2.0
"""Swaps that wait: rolled back at once on request, or by a guard; requests that come too late."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import update
from ipttctl.errors import (
    ExpectationError,
    KernelError,
    LinkGoneError,
    NoSwapWaitsError,
    SwapConfirmedError,
    SwapRolledBackError,
    SwapWaitingError,
)
from ipttctl.hooks.table import TableHook
from ipttctl.link.condition import Condition
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, ProgramSet, Swap
from ipttctl.link.wire import Connection
from ipttproto import Action, Command, Comparison, Counter, NfMode, Slot, SwapOutcome
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import (
    COMMAND_TIMEOUT,
    MODULE,
    load_module,
    loaded_modules,
    settled,
    unload_module,
    wait_for,
)
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Namespace, Network, event, flood_udp, namespace, send_udp
from tests.kernel.support.nf import attach, socket_filter

pytestmark = pytest.mark.usefixtures("no_links")

fork = multiprocessing.get_context("fork")
ADDRESS, PORT = "127.0.0.1", 9
LATER = 600.0
#: rounds, and packets that pass meanwhile, however slow the guest is
ENOUGH, MANY = 12, 500
#: seconds in which a guard that is to fire would have fired
WHILE = 2.0
#: a guard's window in seconds, and a while after which what was counted before is outside
WINDOW, BEYOND = 3, 4


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A namespace with its loopback."""
    with namespace("guards") as made:
        yield made


@pytest.fixture
def good(make_program: MakeProgram) -> Program:
    """A program that lets every packet pass."""
    return socket_filter(make_program, asm.returning(1), name="good")


@pytest.fixture
def bad(make_program: MakeProgram) -> Program:
    """A program that drops every packet."""
    return socket_filter(make_program, asm.returning(0), name="bad")


def filtering(
    controller: Controller, program: Program, place: Namespace, priority: int = 0, **how: Any
) -> Link:
    """A link that may drop what arrives in a namespace."""
    where = f"nf:inet4/input@{priority}"
    return attach(controller, program, where, place, mode=NfMode.FILTER, **how)


def programs(program: Program) -> ProgramSet:
    return ProgramSet({Slot.PACKET: program.fd})


def send(place: Namespace, count: int) -> None:
    """Send datagrams to the namespace itself."""
    place.call(send_udp, ADDRESS, PORT, [b"x"] * count)


def name_of(link: Link) -> str:
    return link.programs[Slot.PACKET].name


def guard(text: str) -> Condition:
    return Condition.parse(text)


def wait_for_outcome(controller: Controller, link: Link, outcome: SwapOutcome) -> Link:
    wait_for(lambda: controller.link(link.id).outcome == outcome, COMMAND_TIMEOUT, outcome.name)
    return controller.link(link.id)


# --- at once --------------------------------------------------------------------------------------


def test_no_packet_is_unseen_when_swaps_are_undone(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """Links at tables and at a hook are swapped and rolled back together, while packets pass.

    Each program set counts in a map of its own. The first one is in force again after each round,
    and handles every packet until the next one: its count is what rose meanwhile.
    """
    net.router.iptables("-t", "mangle", "-A", "FORWARD")
    with one_element_map() as first, one_element_map() as second:
        kprobes = [make_program(asm.counting(fd, 0)) for fd in (first, second)]
        packets = [socket_filter(make_program, asm.counting(fd, 0)) for fd in (first, second)]
        links = [
            controller.attach(TableHook(4), ProgramSet({Slot.ENTRY: kprobes[0].fd})),
            attach(controller, packets[0], "nf:inet4/forward@-200", net.router),
        ]
        links[1] = controller.rename(links[1].id, "web")
        news = [
            Swap(links[0].id, ProgramSet({Slot.ENTRY: kprobes[1].fd})),
            Swap(links[1].id, programs(packets[1])),
        ]
        stop = event()
        flood = net.left.start(flood_udp, net.right_address, PORT, stop)
        wait_for(lambda: controller.link(links[1].id).stats.packets > 0, COMMAND_TIMEOUT)
        rounds = 0
        generation = 1
        while rounds < ENOUGH or controller.link(links[1].id).stats.packets <= MANY:
            swapped = controller.transact(news, rollback_after=LATER)
            by: Mapping[str, Any] = (
                {"link": links[0].id},
                {"link": "web", "expect_generation": generation + 1},
                {"transaction": swapped[0].transaction},
            )[rounds % 3]
            undone = controller.rollback(**by)
            # nothing runs the new programs any more
            frozen = element(second)
            assert [link.id for link in undone] == [link.id for link in links]
            assert [link.generation for link in undone] == [generation + 2] * 2
            assert [link.programs for link in undone] == [link.programs for link in links]
            before = element(first)
            wait_for(lambda: element(first) > before, COMMAND_TIMEOUT)  # noqa: B023  # at once
            assert element(second) == frozen
            generation += 2
            rounds += 1
        stop.set()
        flood.join(COMMAND_TIMEOUT)
        stats = settled(lambda: [controller.link(link.id).stats for link in links])
        counted = net.router.counted("FORWARD", "mangle")
        runs = element(first) + element(second)
        # some met the programs that were undone
        assert element(second) > 0
    print(f"{rounds} roll-backs, {counted} packets, {runs} runs")
    assert stats[1].packets == counted > MANY
    assert runs == sum(one.packets for one in stats)


def test_what_is_told_of_a_roll_back(
    controller: Controller, place: Namespace, good: Program, bad: Program
) -> None:
    """History, notification and link tell who asked for it and why; a timer's tells nobody."""
    links = [filtering(controller, good, place) for _ in range(2)]
    swaps = [Swap(link.id, programs(bad), labels={"version": "2"}) for link in links]
    made = controller.transact(swaps, rollback_after=LATER, reason="canary")
    assert [(link.outcome, link.waits) for link in made] == [(SwapOutcome.WAITING, True)] * 2
    with controller.link_changes() as changes:
        undone = controller.rollback(links[1].id, reason="it drops all")
        told = changes.read(COMMAND_TIMEOUT)
    for link in (*undone, *controller.links()):
        assert (link.outcome, link.waits) == (SwapOutcome.ROLLBACK_REQUEST, False)
        assert (link.reason, link.transaction) == ("it drops all", made[0].transaction)
        assert (link.labels, link.rollback_in, link.guards) == ({}, None, ())
    assert [(c.change, c.link.generation, c.link.reason) for c in told] == [
        (Change.SWAPPED, 3, "it drops all")
    ] * 2
    assert {(c.requester_pid, bool(c.requester_comm)) for c in told} == {(os.getpid(), True)}
    for link in links:
        entry = controller.history(link.id)[2]
        assert (entry.action, entry.pid, entry.uid) == (Action.ROLLBACK_REQUEST, os.getpid(), 0)
        assert (entry.reason, entry.transaction) == ("it drops all", made[0].transaction)
        assert entry.violation is None
    # the next one is by time
    with controller.link_changes() as changes:
        controller.swap(links[0].id, programs(bad), rollback_after=0.1, reason="once more")
        wait_for_outcome(controller, links[0], SwapOutcome.ROLLBACK)
        told = changes.read(COMMAND_TIMEOUT)
    assert [(c.requester_pid, c.link.reason) for c in told] == [(0, "once more"), (0, "")]
    assert controller.history(links[0].id)[-1].action == Action.ROLLBACK


def test_requests_that_come_too_late(
    controller: Controller, place: Namespace, good: Program, bad: Program
) -> None:
    """Each has an errno and a sentence of its own, and changes nothing."""
    link = filtering(controller, good, place)

    def refused(kind: type[KernelError], number: int, words: str, **by: Any) -> None:
        before = controller.link(link.id)
        for verb in (controller.confirm, controller.rollback):
            with pytest.raises(kind, match=words) as error:
                verb(**by)
            assert type(error.value) is kind
            assert error.value.errno == number
        after = controller.link(link.id)
        assert (after.programs, after.outcome) == (before.programs, before.outcome)
        assert after.generation == before.generation

    refused(NoSwapWaitsError, errno.ENODATA, "no swap waits", link=link.id)
    controller.swap(link.id, programs(bad))
    refused(NoSwapWaitsError, errno.ENODATA, "no swap waits", link=link.id, expect_generation=2)
    assert controller.link(link.id).outcome is None

    swapped = controller.swap(link.id, programs(good), rollback_after=LATER)
    number = swapped.transaction
    refused(ExpectationError, errno.ESTALE, "another gen", link=link.id, expect_generation=2)
    for swap in (
        lambda: controller.swap(link.id, programs(bad)),
        lambda: controller.transact([Swap(link.id, programs(bad))], guards=[guard("lost < 1")]),
    ):
        with pytest.raises(SwapWaitingError, match="waits to be confirmed or rolled b") as waiting:
            swap()
        assert waiting.value.errno == errno.EINPROGRESS
    assert controller.confirm(transaction=number).outcome == SwapOutcome.CONFIRMED
    for by in ({"link": link.id}, {"link": link.id, "expect_generation": 3},
               {"transaction": number}):  # fmt: skip  # on one line each
        refused(SwapConfirmedError, errno.EALREADY, "confirmed already", **by)

    number = controller.swap(link.id, programs(bad), rollback_after=LATER).transaction
    controller.rollback(link.id)
    late = ({"link": link.id}, {"link": link.id, "expect_generation": 4},
            {"link": link.id, "expect_generation": 5}, {"transaction": number})  # fmt: skip  # same
    for by in late:
        refused(SwapRolledBackError, errno.ECANCELED, "already: somebody asked for it", **by)
    refused(ExpectationError, errno.ESTALE, "another gen", link=link.id, expect_generation=3)

    controller.swap(link.id, programs(bad), rollback_after=0.05)
    wait_for_outcome(controller, link, SwapOutcome.ROLLBACK)
    refused(SwapRolledBackError, errno.ECANCELED, "not confirmed in time", link=link.id)
    # its swap is not the last one any more
    controller.swap(link.id, programs(bad))
    refused(LinkGoneError, errno.ENOENT, "not the last one of any link", transaction=number)
    refused(NoSwapWaitsError, errno.ENODATA, "no swap waits", link=link.id)
    with Connection.open() as connection:
        for extra in ({"link": link.id}, {"name": "web"}, {"expect-generation": 8}):
            with pytest.raises(KernelError, match="not by both") as both:
                connection.request(Command.ROLLBACK, {"transaction": 1, **extra}, "asking")
            assert (both.value.errno, both.value.attribute) == (errno.EINVAL, "transaction")


def test_others_need_force_to_undo_an_exclusive_owner_s_swap(
    controller: Controller, place: Namespace, good: Program, bad: Program
) -> None:
    """Of several links all stay as they are."""
    with Controller() as owner:
        links = [filtering(owner, good, place), filtering(controller, good, place)]
        owned = owner.adopt(links[0].id, exclusive=True)
        owner.transact([Swap(link.id, programs(bad)) for link in links], rollback_after=LATER)
        before = controller.links()
        with pytest.raises(KernelError, match="owns the link exclusively") as refused:
            controller.rollback(links[1].id)
        assert refused.value.errno == errno.EBUSY
        assert [link.generation for link in controller.links()] == [2, 2]
        assert [link.outcome for link in controller.links()] == [link.outcome for link in before]
        with controller.link_changes() as changes:
            controller.rollback(links[1].id, force=True)
            told = changes.read(COMMAND_TIMEOUT)
        assert {c.link.id: c.forced_pid for c in told} == {owned.id: os.getpid(), links[1].id: 0}


# --- guards ---------------------------------------------------------------------------------------


def _swap_and_wait(link: int, fd: int, guards: list[Condition], ready: Any) -> None:
    with Controller() as controller:
        controller.swap(link, ProgramSet({Slot.PACKET: fd}), guards=guards)
        ready.set()
        signal.pause()


def test_a_guard_needs_no_controller(
    controller: Controller, place: Namespace, good: Program, bad: Program
) -> None:
    """A controller swaps in what drops everything, and is killed: the guard undoes it."""
    link = filtering(controller, good, place, persistent=True)
    guards = [guard("lost < 1"), guard("drops < 10 min 5 packets")]
    ready = fork.Event()
    process = fork.Process(
        target=_swap_and_wait, args=(link.id, bad.fd, guards, ready), daemon=True
    )
    process.start()
    assert ready.wait(COMMAND_TIMEOUT)
    waiting = controller.link(link.id)
    assert (waiting.outcome, waiting.rollback_in) == (SwapOutcome.WAITING, None)
    assert waiting.guards == tuple(guards)
    process.kill()
    process.join()
    # a drop too few
    send(place, 9)
    # the guard must not fire: nothing tells that
    time.sleep(WHILE)
    assert controller.link(link.id).generation == 2
    with controller.link_changes() as changes:
        send(place, 3)
        back = wait_for_outcome(controller, link, SwapOutcome.ROLLBACK_GUARD)
        told = changes.read(COMMAND_TIMEOUT)
    assert (name_of(back), back.generation, back.guards) == ("good", 3, ())
    assert back.violation is not None
    assert (back.violation.condition, back.violation.link) == (guards[1], link.id)
    assert 10 <= back.violation.count <= back.violation.packets <= 12
    assert back.violation.time >= WHILE * 1000
    assert [(c.change, c.link.outcome, c.link.violation) for c in told] == [
        (Change.SWAPPED, SwapOutcome.ROLLBACK_GUARD, back.violation)
    ]
    entry = controller.history(link.id)[-1]
    assert (entry.action, entry.pid, entry.comm) == (Action.ROLLBACK_GUARD, 0, "")
    assert (entry.violation, entry.reason) == (back.violation, "")
    with pytest.raises(SwapRolledBackError, match="a guard did not hold"):
        controller.confirm(link.id)
    # the next swap has nothing of it
    again = controller.swap(link.id, programs(bad))
    assert (again.outcome, again.violation) == (None, None)
    send(place, 12)
    assert name_of(controller.link(link.id)) == "bad"


def test_too_few_packets_decide_nothing(
    controller: Controller, place: Namespace, good: Program, bad: Program
) -> None:
    """Nothing fires without packets, or below the minimum; the time still ends the wait."""
    links = [filtering(controller, good, place, priority) for priority in range(4)]
    texts = (
        # none at all reach these links: the first one drops them
        "packets > 100/s for 200ms",
        "selected >= 1/1",
        "drops < 1/1000 min 1 packets",
    )
    controller.swap(links[0].id, programs(bad), guards=[guard("drops < 1/1000")])
    for link, text in zip(links[1:], texts, strict=True):
        controller.swap(link.id, programs(bad), guards=[guard(text)], rollback_after=WHILE)
    # each is a violation, if it counts: there are fewer than a thousand
    send(place, 20)
    # no guard may fire meanwhile: nothing tells that
    time.sleep(WHILE / 2)
    assert [controller.link(link.id).outcome for link in links[:1]] == [SwapOutcome.WAITING]
    for link in links[1:]:
        back = wait_for_outcome(controller, link, SwapOutcome.ROLLBACK)
        assert (back.violation, back.stats.packets) == (None, 0)
    first = controller.link(links[0].id)
    assert (first.outcome, first.stats.drops) == (SwapOutcome.WAITING, 20)
    send(place, 990)
    back = wait_for_outcome(controller, links[0], SwapOutcome.ROLLBACK_GUARD)
    assert back.violation is not None
    assert back.violation.packets >= 1000


def test_a_guard_of_several_links(
    controller: Controller,
    place: Namespace,
    good: Program,
    bad: Program,
    make_program: MakeProgram,
) -> None:
    """One of them violates it: all go back, and each tells which one it was."""
    table = ProgramSet({Slot.ENTRY: make_program(asm.returning(0)).fd})
    links = [
        filtering(controller, good, place),
        attach(controller, good, "nf:inet4/output", place, mode=NfMode.FILTER),
        controller.attach(TableHook(), table),
    ]
    swaps = [
        Swap(links[0].id, programs(bad)),
        Swap(links[1].id, programs(good)),
        Swap(links[2].id, table),
    ]
    controller.transact(swaps, guards=[guard("drops <= 5")], rollback_after=LATER)
    send(place, 6)
    back = [wait_for_outcome(controller, link, SwapOutcome.ROLLBACK_GUARD) for link in links]
    assert [link.generation for link in back] == [3, 3, 3]
    for link in back:
        assert link.violation is not None
        assert (link.violation.link, link.violation.count) == (links[0].id, 6)
        assert link.transaction == back[0].transaction


def test_a_window_moves(
    controller: Controller, place: Namespace, good: Program, bad: Program
) -> None:
    """Counts older than the window count no more; too many fire before its end."""
    link = filtering(controller, good, place)
    controller.swap(link.id, programs(bad), guards=[guard(f"drops < 30 for {WINDOW}s")])
    for _ in range(3):
        send(place, 14)
        # what was sent leaves the window: time is what the test is about
        time.sleep(BEYOND)
    assert controller.link(link.id).outcome == SwapOutcome.WAITING
    assert controller.link(link.id).stats.drops == 42
    controller.rollback(link.id)
    # the window is an hour, and its end is not waited for
    controller.swap(link.id, programs(bad), guards=[guard("drops < 20/h")])
    send(place, 25)
    back = wait_for_outcome(controller, link, SwapOutcome.ROLLBACK_GUARD)
    assert back.violation is not None
    assert 20 <= back.violation.count <= 25
    # a lower bound is not violated before the window is over, and then it is
    began = time.monotonic()
    controller.swap(link.id, programs(good), guards=[guard("packets >= 1000000 for 2s")])
    send(place, 1)
    back = wait_for_outcome(controller, link, SwapOutcome.ROLLBACK_GUARD)
    assert time.monotonic() - began >= 2
    assert back.violation is not None
    assert back.violation.time >= 2000
    assert back.violation.packets == back.violation.count > 0


def test_a_guard_that_holds_ends_with_the_confirmation(
    controller: Controller, place: Namespace, good: Program, make_program: MakeProgram
) -> None:
    """While packets pass, and more are dropped afterwards than it permits."""
    with one_element_map() as gate:
        # drops as soon as the map says so
        found = asm.look_up(gate, 0) + asm.jump_if_equal(asm.R0, 0, 4)
        element_of = asm.load(asm.R0, asm.R0) + asm.jump_if_equal(asm.R0, 0, 2)
        switch = found + element_of + asm.returning(0) + asm.returning(1)
        switched = socket_filter(make_program, switch, name="switch")
        link = filtering(controller, good, place)
        texts = ("drops < 10/s for 200ms", "drops < 1/100 min 20 packets", "selected >= 1/2")
        controller.swap(link.id, programs(switched), guards=map(guard, texts))
        for _ in range(4):
            send(place, 30)
        time.sleep(WHILE / 2)
        kept = controller.confirm(link.id, expect_generation=2)
        assert (kept.outcome, kept.guards, kept.stats.drops) == (SwapOutcome.CONFIRMED, (), 0)
        update(gate, bytes(4), (1).to_bytes(8, "little"))
        send(place, 100)
        time.sleep(WHILE / 2)
        now = controller.link(link.id)
        assert (now.outcome, now.generation) == (SwapOutcome.CONFIRMED, 2)
        assert now.stats.drops >= 100


def test_detached_and_unloaded_while_it_waits(place: Namespace, make_program: MakeProgram) -> None:
    """A link that goes leaves the others to their guard; the last one takes the guard with it."""
    good, bad = (
        socket_filter(make_program, asm.returning(value), name=name)
        for value, name in ((1, "good"), (0, "bad"))
    )
    guards = [guard("drops < 5"), guard("drops < 100/s for 1s")]
    try:
        with Controller() as controller:
            links = [filtering(controller, good, place, priority) for priority in range(3)]
            swaps = [Swap(link.id, programs(bad)) for link in links]
            controller.transact(swaps, guards=guards)
            # what it would have dropped reaches the second one
            gone = controller.detach(links[0].id)
            assert (gone.guards, gone.outcome) == ((), None)
            send(place, 6)
            back = wait_for_outcome(controller, links[1], SwapOutcome.ROLLBACK_GUARD)
            assert back.violation is not None
            assert back.violation.link == links[1].id
            assert controller.link(links[2].id).generation == 3
            for link in links[1:]:
                controller.swap(link.id, programs(bad), guards=guards, rollback_after=LATER)
            controller.detach(links[1].id)
        # the owner's end detached the last one, while its work was queued
        wait_for(lambda: loaded_modules()[MODULE] == 0)
        unload_module()
    finally:
        if MODULE not in loaded_modules():
            load_module()


def test_conditions_that_make_no_sense(
    controller: Controller, place: Namespace, good: Program
) -> None:
    link = filtering(controller, good, place)
    whole = {
        "counter": int(Counter.DROPS), "comparison": int(Comparison.BELOW), "threshold": 5,
    }  # fmt: skip  # plain

    def refused(guards: list[dict[str, int]], number: int, words: str, attribute: str) -> None:
        attributes = {
            "link": link.id, "programs": programs(good).attributes(), "guard": guards,
        }  # fmt: skip  # plain
        with Connection.open() as connection, pytest.raises(KernelError, match=words) as error:
            connection.request(Command.SWAP, attributes, "swapping")
        assert (error.value.errno, error.value.attribute) == (number, attribute)

    for name in whole:
        nest = {key: value for key, value in whole.items() if key != name}
        refused([nest], errno.EINVAL, "needs a counter, a comparison", f"guard.{name}")
    both = {"per-time": 1000, "per-packets": 10}
    refused([whole, whole | both], errno.EINVAL, "not in both", "guard[1]")
    for comparison in (Comparison.BELOW, Comparison.AT_LEAST):
        nest = whole | {"threshold": 0, "comparison": int(comparison)}
        refused([nest], errno.EINVAL, "nothing is below 0", "guard")
    for comparison in (Comparison.ABOVE, Comparison.AT_LEAST):
        nest = whole | {"comparison": int(comparison)}
        refused([nest], errno.EINVAL, "needs a time or packets", "guard")
    refused([whole] * 9, errno.E2BIG, "more conditions than are taken", "guard[8]")
    (unchanged,) = controller.links()
    assert (unchanged.generation, unchanged.outcome) == (1, None)
    # what a foreign client leaves out is what Condition takes for it
    for text in ("drops < 10/s", "drops < 5/20ms", "drops < 1/1000", "drops < 3"):
        condition = guard(text)
        nest = {
            name: value
            for name, value in condition.attributes().items()
            if name not in {"window", "minimum"}
        }
        with Connection.open() as connection:
            attributes = {
                "link": link.id, "programs": programs(good).attributes(), "guard": [nest],
            }  # fmt: skip  # plain
            connection.request(Command.SWAP, attributes, "swapping")
        assert controller.link(link.id).guards == (condition,)
        controller.confirm(link.id)
    controller.swap(link.id, programs(good), guards=[guard("lost < 1")] * 8)
    assert len(controller.confirm(link.id).guards) == 0


# --- the command line -----------------------------------------------------------------------------


def _json(*line: str) -> list[dict[str, Any]]:
    done = ipttctl(*line, "-o", "json")
    assert done.returncode == 0, done.stderr
    return [json.loads(one) for one in done.stdout.splitlines()]


def test_the_command_line(
    controller: Controller, place: Namespace, good: Program, bad: Program
) -> None:
    """Guards, roll-backs, and an exit status for each way of being too late."""
    controller.rename(filtering(controller, good, place).id, "web")

    def refused(status: int, words: str, *line: str) -> None:
        done = ipttctl(*line)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert words in done.stderr
        assert done.stderr.count("\n") == 1

    given = ("swap", "web", "--id", f"packet={bad.id}")
    refused(15, "[ENODATA]", "rollback", "web")
    text = "drops < 5/s for 10s"
    (waiting,) = _json(*given, "--guard", text, "--guard", "lost<1", "--rollback-after", "1h")
    assert (waiting["outcome"], waiting["guards"]) == ("waiting", [text, "lost < 1"])
    assert waiting["rollback_in_s"] > 0
    shown = ipttctl("links", "web").stdout
    assert " last-swap=waiting rollback-in=" in shown
    assert "guard=" in shown
    refused(12, "[EINPROGRESS]", *given)
    refused(7, "[ESTALE]", "rollback", "web", "--expect-gen", "1")
    number = waiting["transaction"]
    (undone,) = _json("rollback", f"txn:{number}", "--reason", "enough")
    assert (undone["outcome"], undone["generation"]) == ("rollback_request", 3)
    assert (undone["reason_text"], undone["guards"]) == ("enough", [])
    refused(14, "[ECANCELED]", "rollback", f"txn:{number}")
    refused(14, "[ECANCELED]", "confirm", "web", "--expect-gen", "2")
    refused(6, "[ENOENT]", "confirm", "txn:999999")
    (kept,) = _json(*given, "--guard", "lost < 1")
    _json("confirm", f"txn:{kept['transaction']}")
    refused(13, "[EALREADY]", "rollback", "web")
    _json(*given, "--guard", text)
    send(place, 60)
    wait_for(lambda: _json("links", "web")[0]["outcome"] == "rollback_guard", COMMAND_TIMEOUT)
    (back,) = _json("links", "web")
    assert back["violation"]["guard"] == text
    assert back["violation"]["count"] >= 50
    last = ipttctl("history", "web").stdout.splitlines()[-1]
    assert " action=rollback_guard " in last
    assert " by=module " in last
    assert "violation=" in last
