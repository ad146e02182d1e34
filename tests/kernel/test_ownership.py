# SPDX-License-Identifier: GPL-2.0
"""Owners of links: released and adopted without a gap; exclusive ones against others."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.errors import KernelError, LinkGoneError
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, LinkChange, ProgramSet, Swap
from ipttctl.link.wire import Connection
from ipttproto import Command, LinkFlag, Slot
from tests.kernel.support.cli import Running, ipttctl, running
from tests.kernel.support.kernel import COMMAND_TIMEOUT, wait_for
from tests.kernel.support.network import Namespace, event, flood_udp, namespace

HOOK = NfHook.parse("nf:inet4/output")
PORT = 9
#: packets that pass between two changes, however slow the guest is
MANY = 200
ROUNDS = 3


@pytest.fixture
def programs(packet: Program) -> ProgramSet:
    return ProgramSet({Slot.PACKET: packet.fd})


@pytest.fixture
def other() -> Iterator[Controller]:
    """A second controller, which is somebody else to the module."""
    with Controller() as made:
        yield made


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("owners") as made:
        made.iptables("-A", "OUTPUT", "-p", "udp", "--dport", str(PORT), "-j", "ACCEPT")
        yield made


def counted(place: Namespace) -> int:
    """The packets that the rule behind the link has counted."""
    return int(place.iptables("-nvxL", "OUTPUT").splitlines()[2].split()[0])


def changes_of(link: Link, controller: Controller, act: Callable[[], Any]) -> list[LinkChange]:
    """The changes of a link while something is done."""
    with controller.link_changes() as changes:
        act()
        controller.rename(link.id, "last")
        told: list[LinkChange] = []
        while not told or told[-1].link.name != "last":
            # the end of a replaced set comes at its own time
            read = changes.read(COMMAND_TIMEOUT)
            told += [change for change in read if change.change is not Change.ENDED]
    return told[:-1]


# --- from one controller to the next --------------------------------------------------------------


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("end", [None, signal.SIGKILL], ids=["told", "killed"])
def test_no_packet_is_unseen_between_two_controllers(
    place: Namespace, packet: Program, end: int | None
) -> None:
    """Each controller is released, ends, and another one adopts the link, all under flood.

    Every packet meets the link first and then a rule: both have counted the same in the end.
    """
    given = ("--hook", "nf:inet4/output@raw", "--netns", place.name, "--filter", f"udp port {PORT}")
    stop = event()
    with ExitStack() as stack:
        held = stack.enter_context(
            running("attach", *given, "--id", f"packet={packet.id}", "--name", "web")
        )
        held.wait_for_text("\n")
        flood = place.start(flood_udp, "127.0.0.1", PORT, stop)
        for _ in range(ROUNDS):
            _let_pass(place, MANY)
            _released(held, end)
            held = stack.enter_context(running("adopt", "web"))
            held.wait_for_text("\n")
        stop.set()
        flood.join(COMMAND_TIMEOUT)
        (link,) = _links()
        assert link["name"] == "web"
        assert (link["generation"], link["owner_pid"]) == (1, held.process.pid)
        assert link["selected"] == counted(place) > ROUNDS * MANY
        assert held.stop() == 0
    wait_for(lambda: _links() == [], what="the link is gone")


def _let_pass(place: Namespace, packets: int) -> None:
    """Wait until so many packets have passed."""
    enough = counted(place) + packets
    wait_for(lambda: counted(place) >= enough, what=f"{packets} packets")


def _released(held: Running, end: int | None) -> None:
    """Release the link of a controller, which ends."""
    released = ipttctl("release", "web", "-o", "json")
    assert released.returncode == 0, released.stderr
    assert json.loads(released.stdout)["persistent"]
    if end is not None:
        held.process.send_signal(end)
    status = held.process.wait(COMMAND_TIMEOUT)
    if end is None:
        assert status == 0
        assert "is not ours any more: it was released, and stays" in held.err()


def _links() -> list[dict[str, Any]]:
    listed = ipttctl("links", "-o", "json")
    return [json.loads(line) for line in listed.stdout.splitlines()]


def test_a_released_link_outlives_its_owner(controller: Controller, programs: ProgramSet) -> None:
    with Controller() as owner:
        link = owner.attach(HOOK, programs, exclusive=True)
        assert (link.persistent, link.exclusive) == (False, True)
        told = changes_of(link, controller, lambda: owner.release(link.id))
    (left,) = controller.links()
    assert (left.persistent, left.exclusive, left.owner_portid) == (True, False, 0)
    assert left.owner_pid == os.getpid()
    assert [(c.change, c.link.persistent, c.forced_pid) for c in told] == [
        (Change.CHANGED, True, 0)
    ]
    # once more changes nothing
    assert controller.release(link.id).persistent
    with Controller() as second:
        assert second.adopt(link.id).generation == 1
    assert controller.links() == []


def test_anybody_releases_a_link_that_is_not_exclusive(
    controller: Controller, other: Controller, programs: ProgramSet
) -> None:
    link = controller.attach(HOOK, programs)
    assert other.release(link.id).persistent
    assert other.adopt(link.id).owner_portid not in {0, link.owner_portid}
    with pytest.raises(KernelError, match="owns the link") as refused:
        controller.adopt(link.id)
    assert refused.value.errno == errno.EBUSY
    other.detach(link.id)


# --- exclusive ------------------------------------------------------------------------------------


def everything(controller: Controller, link: Link, programs: ProgramSet) -> dict[str, Any]:
    """All that an exclusive owner keeps from others, each to be done with force or without."""
    return {
        "swap": lambda **how: controller.swap(link.id, programs, wait=True, **how),
        "transact": lambda **how: controller.transact([Swap(link.id, programs)], wait=True, **how),
        "adopt": lambda **how: controller.adopt(link.id, **how),
        "release": lambda **how: controller.release(link.id, **how),
        "detach": lambda **how: controller.detach(link.id, **how),
    }


VERBS = ("swap", "transact", "adopt", "release", "detach")


@pytest.mark.parametrize("verb", VERBS)
def test_others_need_force(
    controller: Controller, other: Controller, programs: ProgramSet, verb: str
) -> None:
    link = controller.attach(HOOK, programs, exclusive=True)
    bystander = controller.attach(HOOK, programs)
    act = everything(other, link, programs)[verb]
    with pytest.raises(KernelError, match="owns the link") as refused:
        act()
    assert refused.value.errno == errno.EBUSY
    assert refused.value.attribute in {"link", "change.link"}
    if "another" not in refused.value.extack:
        assert f"process {os.getpid()} (" in refused.value.extack
    with pytest.raises(KernelError, match="owns the link"):
        other.transact([Swap(bystander.id, programs), Swap(link.id, programs)])
    assert controller.links() == [link, bystander]
    with controller.link_changes() as changes:
        act(force=True)
        told = changes.read(COMMAND_TIMEOUT)
    assert [(c.link.id, c.forced_pid) for c in told] == [(link.id, os.getpid())]
    assert told[0].forced_comm
    if verb == "detach":
        with pytest.raises(LinkGoneError):
            controller.link(link.id)
    else:
        other.detach(link.id, force=True)


@pytest.mark.parametrize("verb", VERBS)
def test_the_owner_needs_no_force(controller: Controller, programs: ProgramSet, verb: str) -> None:
    """And what it does is not told as forced, even if it says so."""
    for how in ({}, {"force": True}):
        link = controller.attach(HOOK, programs, exclusive=True)
        act = everything(controller, link, programs)[verb]
        with controller.link_changes() as changes:
            act(**how)
            told = changes.read(COMMAND_TIMEOUT)
        assert [c.forced_pid for c in told] == [0]
        if verb != "detach":
            controller.detach(link.id)


def test_what_is_not_protected(
    controller: Controller, other: Controller, programs: ProgramSet
) -> None:
    """Its name, and the confirmation of a swap that the owner made; and it ends with its owner."""
    with Controller() as owner:
        link = owner.attach(HOOK, programs, exclusive=True)
        owner.swap(link.id, programs, rollback_after=60)
        assert other.confirm(link.id).rollback_in is None
        assert other.rename(link.id, "web").exclusive
        assert [entry.generation for entry in other.history("web")] == [1, 2]
    assert controller.links() == []


def test_a_forced_adoption_takes_the_link(
    controller: Controller, other: Controller, programs: ProgramSet
) -> None:
    """From an owner that is not exclusive too; the next owner may be so, and later may not."""
    link = controller.attach(HOOK, programs)
    taken = other.adopt(link.id, exclusive=True, force=True)
    assert taken.exclusive
    assert taken.owner_portid != link.owner_portid
    with pytest.raises(KernelError, match="exclusively"):
        controller.swap(link.id, programs)
    assert not other.adopt(link.id).exclusive
    assert controller.swap(link.id, programs).generation == 2
    controller.close()
    assert other.link(link.id).generation == 2
    other.detach(link.id)


def test_flags_that_make_no_sense(controller: Controller, programs: ProgramSet) -> None:
    with pytest.raises(KernelError, match="has no owner that has it exclusively") as refused:
        controller.attach(HOOK, programs, persistent=True, exclusive=True)
    assert refused.value.errno == errno.EINVAL
    link = controller.attach(HOOK, programs, persistent=True)
    with Connection.open() as connection:
        for flag in (LinkFlag.PERSISTENT, LinkFlag.COUNT_RULES, LinkFlag.REPORT_DROPS):
            with pytest.raises(KernelError, match="exclusively or not"):
                connection.request(Command.ADOPT, {"link": link.id, "flags": int(flag)}, "adopting")
    assert controller.links() == [link]
    controller.detach(link.id)


@pytest.mark.usefixtures("no_links")
def test_an_exclusive_owner_on_the_command_line(place: Namespace, packet: Program) -> None:
    identifier = f"packet={packet.id}"
    given = ("attach", "--hook", "nf:inet4/output", "--netns", place.name, "--id", identifier)
    with running(*given, "--name", "web", "--exclusive") as owner:
        owner.wait_for_text("\n")
        assert " exclusive=yes " in owner.out()
        for line in (
            ("swap", "web", "--id", identifier), ("detach", "web"), ("adopt", "web"),
            ("release", "web"),
        ):  # fmt: skip  # pairs together
            refused = ipttctl(*line)
            assert refused.returncode == 1, line
            assert "owns the link" in refused.stderr
            assert "[EBUSY]" in refused.stderr
        with running("events", "--links", "-o", "json") as observer:
            observer.wait_for_text("listening")
            assert ipttctl("swap", "web", "--id", identifier, "--force", "--wait").returncode == 0
            owner.wait_for_text("was swapped by force, by process ")
            assert ipttctl("detach", "web", "--force").returncode == 0
            assert owner.process.wait(COMMAND_TIMEOUT) == 10
            wait_for(lambda: "detached" in observer.out(), what="the end is told")
            told = observer.finish()
    assert "was detached by force, by process " in owner.err()
    assert [bool(one.get("forced_pid")) for one in told] == [False, True, True]
