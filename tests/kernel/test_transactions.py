# SPDX-License-Identifier: GPL-2.0
"""Swaps of several links, all or none; swaps with a rollback unless they are confirmed."""

from __future__ import annotations

import errno
import multiprocessing
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ipttctl.errors import (
    ExpectationError,
    KernelError,
    LinkGoneError,
    SwapConfirmedError,
    SwapRolledBackError,
    SwapWaitingError,
)
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, ProgramSet, Swap
from ipttctl.link.wire import Connection
from ipttproto import Action, Command, NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
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
from tests.kernel.support.network import Network, event, flood_udp
from tests.kernel.support.nf import attach, of_protocol, socket_filter

fork = multiprocessing.get_context("fork")
SECONDS = 5
#: the least number of transactions
ENOUGH = 20
#: packets that pass meanwhile, however slow the guest is
MANY = 500
LATER = 60.0
#: seconds in which a ping fails on any kernel: the debug kernel has five times as many
AWHILE = COMMAND_TIMEOUT / 15
#: seconds after which a swap is rolled back; a guest may be late by as much again
SOON = 2.0


@pytest.fixture
def links(controller: Controller, make_program: MakeProgram) -> Iterator[list[Link]]:
    """One link at tables, two at netfilter hooks, all of generation 1."""
    packet = socket_filter(make_program, asm.returning(0), name="old_packet")
    yield [
        controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program(name="old_entry").fd})),
        attach(controller, packet, "nf:inet4/output"),
        attach(controller, packet, "nf:bridge/forward"),
    ]
    for link in controller.links():
        controller.detach(link.id)


@pytest.fixture
def news(make_program: MakeProgram) -> list[ProgramSet]:
    """The new program set of each link."""
    packet = socket_filter(make_program, asm.returning(0), name="new_packet").fd
    return [
        ProgramSet({Slot.EXIT: make_program(name="new_exit").fd}),
        ProgramSet({Slot.PACKET: packet}),
        ProgramSet({Slot.PACKET: packet}),
    ]


def swaps_of(links: list[Link], news: list[ProgramSet]) -> list[Swap]:
    return [Swap(link.id, new) for link, new in zip(links, news, strict=True)]


def names(link: Link) -> list[str]:
    """The names of the programs of a link."""
    return [program.name for program in link.programs.values()]


def without_stats(links: list[Link]) -> list[tuple[Any, ...]]:
    return [(link.id, link.generation, link.programs, link.rollback_in) for link in links]


# --- all or none ----------------------------------------------------------------------------------


def test_links_are_swapped_together(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    with controller.link_changes() as changes:
        swapped = controller.transact(swaps_of(links, news))
        assert [link.id for link in swapped] == [link.id for link in links]
        assert [link.generation for link in swapped] == [2, 2, 2]
        assert [names(link) for link in swapped] == [["new_exit"], ["new_packet"], ["new_packet"]]
        assert without_stats(controller.links()) == without_stats(swapped)
        # the answers come in the order of the request
        again = controller.transact(list(reversed(swaps_of(links, news))))
        assert [link.id for link in again] == [link.id for link in reversed(links)]
        told = changes.read(5)
    assert [(c.change, c.link.id) for c in told[:3]] == [
        (Change.SWAPPED, link.id) for link in links
    ]
    for link in links:
        history = controller.history(link.id)
        assert [entry.action for entry in history] == [Action.ATTACH, Action.SWAP, Action.SWAP]


def _refused(
    controller: Controller, swaps: list[Swap], kind: type[KernelError], words: str
) -> KernelError:
    """The refusal of a transaction, which changed nothing."""
    before = without_stats(controller.links())
    with pytest.raises(kind, match=words) as refused:
        controller.transact(swaps)
    assert without_stats(controller.links()) == before
    return refused.value


def test_a_third_link_that_is_gone_keeps_the_others_as_they_were(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    swaps = swaps_of(links, news)
    controller.detach(links[2].id)
    error = _refused(controller, swaps, LinkGoneError, "there is no such link")
    assert (error.errno, error.attribute) == (errno.ENOENT, "change[2].link")
    # without that link the request is valid
    assert len(controller.transact(swaps[:2])) == 2


def test_an_expectation_that_fails_keeps_all_as_they_were(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    swaps = swaps_of(links, news)
    swaps[1] = Swap(links[1].id, news[1], expect_generation=2)
    error = _refused(controller, swaps, ExpectationError, "another generation")
    assert error.attribute == "change[1].expect-generation"
    swaps[1] = Swap(links[1].id, news[1], expect_programs={Slot.PACKET: 1})
    error = _refused(controller, swaps, ExpectationError, "another program")
    assert error.attribute == "change[1].expect-program"
    right = {Slot.PACKET: links[1].programs[Slot.PACKET].id, Slot.ENTRY: 0}
    swaps[1] = Swap(links[1].id, news[1], 1, right)
    assert [link.generation for link in controller.transact(swaps)] == [2, 2, 2]


def test_a_link_cannot_be_swapped_twice_at_once(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    swaps = [*swaps_of(links, news), Swap(links[0].id, news[0])]
    error = _refused(controller, swaps, KernelError, "in the transaction twice")
    assert (error.errno, error.attribute) == (errno.EINVAL, "change[3].link")


def test_programs_must_suit_their_links(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    swaps = [Swap(links[0].id, news[0]), Swap(links[1].id, news[0])]
    error = _refused(controller, swaps, KernelError, "packet slot only")
    assert (error.errno, error.attribute) == (errno.EINVAL, "change[1].programs")
    swaps = [Swap(links[1].id, news[1]), Swap(links[0].id, news[1])]
    _refused(controller, swaps, KernelError, "packet slot is of netfilter hooks")
    with pytest.raises(KernelError, match="packet slot is of netfilter hooks"):
        controller.swap(links[0].id, news[1])


def test_how_many_changes_there_can_be(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    with pytest.raises(KernelError, match="no change is given") as refused:
        controller.transact([])
    assert refused.value.attribute == "change"
    swaps = [Swap(links[0].id, news[0])] * 33
    error = _refused(controller, swaps, KernelError, "more changes than one transaction")
    assert error.errno == errno.E2BIG
    many = [controller.attach(TableHook(), news[0]) for _ in range(32)]
    swapped = controller.transact([Swap(link.id, news[0]) for link in many])
    assert [link.id for link in swapped] == [link.id for link in many]
    assert {link.generation for link in swapped} == {2}


def test_changes_that_lack_something(controller: Controller, links: list[Link]) -> None:
    with Connection.open() as connection:
        for change, words, attribute in (
            ({"programs": {"cookie": 1}}, "no link is given", "change.link"),
            ({"link": links[0].id}, "no program set is given", "change.programs"),
            ({"link": links[0].id, "programs": {"cookie": 1}}, "no program", "change.programs"),
        ):
            with pytest.raises(KernelError, match=words) as refused:
                connection.request(Command.TRANSACT, {"change": [change]}, "swapping")
            assert (refused.value.errno, refused.value.attribute) == (errno.EINVAL, attribute)
    assert [link.generation for link in controller.links()] == [1, 1, 1]


def test_no_packet_is_unseen_or_seen_twice(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """A table link and two netfilter links are swapped together while packets pass all three."""
    net.router.iptables("-t", "mangle", "-A", "FORWARD")
    with one_element_map() as first, one_element_map() as second:
        kprobes = [make_program(asm.counting(fd, 0)) for fd in (first, second)]
        packets = [socket_filter(make_program, asm.counting(fd, 0)) for fd in (first, second)]
        links = [
            controller.attach(TableHook(4), ProgramSet({Slot.ENTRY: kprobes[0].fd})),
            attach(controller, packets[0], "nf:inet4/forward@-200", net.router),
            attach(controller, packets[0], "nf:inet4/forward@200", net.router),
        ]
        stop = event()
        flood = net.left.start(flood_udp, net.right_address, 9, stop)
        # it takes time until the flood begins
        wait_for(lambda: controller.link(links[1].id).stats.packets > 0, COMMAND_TIMEOUT)
        rounds = 0
        end = time.monotonic() + SECONDS

        def seen() -> int:
            return controller.link(links[1].id).stats.packets

        while time.monotonic() < end or rounds <= ENOUGH or seen() <= MANY:
            rounds += 1
            entry = ProgramSet({Slot.ENTRY: kprobes[rounds % 2].fd})
            packet = ProgramSet({Slot.PACKET: packets[rounds % 2].fd})
            controller.transact(swaps_of(links, [entry, packet, packet]))
        stop.set()
        flood.join(30)
        stats = settled(lambda: [controller.link(link.id).stats for link in links])
        counted = net.router.counted("FORWARD", "mangle")
        runs = element(first) + element(second)
    print(f"{rounds} transactions, {counted} packets, {runs} runs")
    assert counted > MANY
    # the rule is in mangle's forward chain; the table link counts other chains too
    assert stats[1].packets == stats[2].packets == counted
    assert runs == sum(one.packets for one in stats)
    assert all(element_ > 0 for element_ in (stats[0].packets, runs))


# --- rollback unless confirmed --------------------------------------------------------------------


def test_a_swap_goes_back_by_itself(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    with controller.link_changes() as changes:
        swapped = controller.transact(swaps_of(links, news), rollback_after=SOON)
        assert all(0 <= (link.rollback_in or -1) <= SOON for link in swapped)
        wait_for(lambda: all(link.generation == 3 for link in controller.links()))
        told = changes.read(5)
    back = controller.links()
    assert [link.programs for link in back] == [link.programs for link in links]
    assert [link.rollback_in for link in back] == [None, None, None]
    assert [c.change for c in told] == [Change.SWAPPED] * 6
    assert [(c.link.generation, c.link.programs) for c in told[3:]] == [
        (3, link.programs) for link in links
    ]
    for link in links:
        history = controller.history(link.id)
        assert [e.action for e in history] == [Action.ATTACH, Action.SWAP, Action.ROLLBACK]
        assert (history[2].pid, history[2].uid, history[2].comm) == (0, 0, "")
        assert history[2].programs == history[0].programs
        # not before its time, and not much later
        assert SOON - 0.1 < (history[2].time - history[1].time) / 1e9 < 2 * SOON
    # they can be swapped again, and no longer be confirmed
    with pytest.raises(SwapRolledBackError, match="it was not confirmed in time"):
        controller.confirm(links[0].id)
    assert controller.swap(links[0].id, news[0]).generation == 4


def test_a_confirmed_swap_stays(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    """Confirming one of the links confirms the whole transaction."""
    controller.transact(swaps_of(links, news), rollback_after=3)
    with controller.link_changes() as changes:
        confirmed = controller.confirm(links[1].id)
        assert (confirmed.id, confirmed.rollback_in) == (links[1].id, None)
        told = changes.read(5)
    assert sorted(c.link.id for c in told) == [link.id for link in links]
    assert {(c.change, c.link.rollback_in) for c in told} == {(Change.CHANGED, None)}
    with pytest.raises(SwapConfirmedError, match="was confirmed already") as refused:
        controller.confirm(links[0].id)
    assert (refused.value.errno, refused.value.attribute) == (errno.EALREADY, "link")
    # a later swap with a later rollback is rolled back after it
    controller.swap(links[0].id, news[0], rollback_after=4)
    wait_for(lambda: controller.link(links[0].id).generation == 4)
    assert [link.generation for link in controller.links()] == [4, 2, 2]


def test_a_late_confirmation_keeps_no_other_swap(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    """A's canary is rolled back and B's waits: A's confirmation, which comes late, is refused."""
    first = controller.transact(swaps_of(links, news), rollback_after=SOON)
    wait_for(lambda: all(link.generation == 3 for link in controller.links()))
    # nobody's swap waits
    for link in first:
        with pytest.raises(SwapRolledBackError, match="it was not confirmed in time"):
            controller.confirm(link.id, expect_generation=link.generation)
    with Controller() as somebody_else:
        second = somebody_else.transact(swaps_of(links, news), rollback_after=LATER)
        for link in first:
            with pytest.raises(ExpectationError) as refused:
                controller.confirm(link.id, expect_generation=link.generation)
            assert (refused.value.errno, refused.value.attribute) == (
                errno.ESTALE,
                "expect-generation",
            )
        waiting = controller.links()
        assert all(link.rollback_in is not None for link in waiting)
        assert [link.generation for link in waiting] == [4, 4, 4]
        # B's own confirmation, by the generation of one of the links
        kept = somebody_else.confirm(second[2].id, expect_generation=second[2].generation)
        assert kept.rollback_in is None
    assert [link.rollback_in for link in controller.links()] == [None, None, None]
    # it is confirmed already: the generation is right, and there is nothing to confirm
    with pytest.raises(SwapConfirmedError, match="was confirmed already"):
        controller.confirm(second[0].id, expect_generation=second[0].generation)


def test_a_confirmation_without_a_generation_is_of_whichever_swap_waits(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    """As clients send it that know no generation."""
    controller.swap(links[0].id, news[0], rollback_after=SOON)
    wait_for(lambda: controller.link(links[0].id).generation == 3)
    controller.swap(links[0].id, news[0], rollback_after=LATER)
    assert controller.confirm(links[0].id).generation == 4
    assert controller.link(links[0].id).rollback_in is None


def test_what_waits_is_not_swapped_again(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    controller.swap(links[1].id, news[1], rollback_after=LATER)
    for swap in (
        lambda: controller.swap(links[1].id, news[1]),
        lambda: controller.transact(swaps_of(links, news)),
    ):
        with pytest.raises(SwapWaitingError, match="waits to be confirmed or rolled back"):
            swap()
    assert [link.generation for link in controller.links()] == [1, 2, 1]
    assert LATER - 30 < (controller.link(links[1].id).rollback_in or 0) <= LATER
    controller.confirm(links[1].id)
    assert controller.swap(links[1].id, news[1]).generation == 3


def test_a_link_that_is_detached_does_not_go_back(
    controller: Controller, links: list[Link], news: list[ProgramSet]
) -> None:
    """The other links of the transaction go back; with none left there is nothing to do."""
    controller.transact(swaps_of(links, news), rollback_after=0.3)
    assert names(controller.detach(links[0].id)) == ["new_exit"]
    wait_for(lambda: all(link.generation == 3 for link in controller.links()))
    controller.transact(swaps_of(links[1:], news[1:]), rollback_after=LATER)
    for link in links[1:]:
        controller.detach(link.id)
    assert controller.links() == []
    # the pending rollback does not hold the module
    wait_for(lambda: loaded_modules()[MODULE] == 0)


def _swap_and_wait(link: Link, fd: int, seconds: float, ready: Any) -> None:
    with Controller() as controller:
        controller.swap(link.id, ProgramSet({Slot.PACKET: fd}), rollback_after=seconds)
        ready.set()
        signal.pause()


def test_sigkill_of_the_controller_does_not_keep_a_swap(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """A controller swaps a persistent link to a program that drops everything, and is killed."""
    good = socket_filter(make_program, asm.returning(1), name="good")
    bad = socket_filter(make_program, of_protocol(99), name="bad")
    link = attach(controller, good, "nf:inet/output", net.left, persistent=True, mode=NfMode.FILTER)
    ready = fork.Event()
    process = fork.Process(target=_swap_and_wait, args=(link, bad.fd, AWHILE, ready), daemon=True)
    process.start()
    assert ready.wait(COMMAND_TIMEOUT)
    assert names(controller.link(link.id)) == ["bad"]
    assert "100% packet loss" in net.left.ping(net.right_address, check=False)
    process.kill()
    process.join()
    assert controller.link(link.id).generation == 2
    wait_for(lambda: controller.link(link.id).generation == 3, COMMAND_TIMEOUT)
    assert names(controller.link(link.id)) == ["good"]
    net.left.ping(net.right_address)
    controller.detach(link.id)


def test_links_of_a_killed_owner_go_before_they_go_back(
    controller: Controller, make_program: MakeProgram
) -> None:
    """The swap's time runs out after the link is gone, and the module unloads."""
    programs = ProgramSet({Slot.ENTRY: make_program().fd})
    with Controller() as owner:
        link = owner.attach(TableHook(), programs)
        owner.swap(link.id, programs, rollback_after=LATER)
    wait_for(lambda: not controller.links())


def test_the_module_unloads_after_roll_backs(make_program: MakeProgram) -> None:
    """A finished rollback holds nothing."""
    programs = ProgramSet({Slot.ENTRY: make_program().fd})
    try:
        for _ in range(5):
            with Controller() as controller:
                link = controller.attach(TableHook(), programs)
                controller.swap(link.id, programs, rollback_after=0.001)
                wait_for(lambda: controller.link(link.id).generation == 3)  # noqa: B023  # at once
            wait_for(lambda: loaded_modules()[MODULE] == 0)
            unload_module()
            load_module()
    finally:
        if MODULE not in loaded_modules():
            load_module()
