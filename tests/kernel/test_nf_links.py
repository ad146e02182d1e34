# SPDX-License-Identifier: GPL-2.0
"""Links at netfilter hooks: programs, limits, namespaces and devices that disappear."""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf import syscalls
from ipttctl.errors import KernelError, UsageError
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, ProgramSet
from ipttctl.link.wire import Connection
from ipttproto import Command, Flag, Gone, Hook, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import refused_dumps_are_explained, run, unload_module, wait_for
from tests.kernel.support.network import (
    Network,
    event,
    flood_udp,
    ip_batch,
    namespace,
    send_udp,
)
from tests.kernel.support.nf import (
    CB,
    UDP,
    attach,
    netns_of,
    nf_hook,
    of_protocol,
    socket_filter,
)
from tests.kernel.support.observing import observing

# --- programs made for other users ----------------------------------------------------------------


def test_an_object_made_for_iptables(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """The same pinned program works in `iptables -m bpf --object-pinned` and in a link."""
    pin = Path("/sys/fs/bpf/iptt-test-xt-bpf")
    program = socket_filter(make_program, of_protocol(UDP), name="for_iptables")
    syscalls.pin(program.fd, pin)
    try:
        # ip netns exec would hide the pin: it mounts a /sys of its own
        rule = ("-t", "raw", "-A", "PREROUTING", "-m", "bpf", "--object-pinned", str(pin))
        run("nsenter", f"--net={net.router.path}", "iptables-legacy", *rule)
        fd = syscalls.open_pinned(pin)
        try:
            hook = NfHook.parse("nf:inet4/prerouting@raw", netns=net.router.path)
            link = controller.attach(hook, ProgramSet({Slot.PACKET: fd}))
        finally:
            os.close(fd)
        assert link.programs[Slot.PACKET].id == program.id
        net.left.call(send_udp, net.right_address, 9, [b"x"] * 7)
        net.left.ping(net.right_address)
        wait_for(lambda: controller.link(link.id).stats.events == 7)
        matched = net.router.counted("PREROUTING", "raw")
        stats = controller.detach(link.id).stats
        assert (stats.events, matched) == (7, 7)
        assert stats.packets > 7
        net.router.iptables("-t", "raw", "-F")
    finally:
        pin.unlink()


def test_control_blocks_are_as_they_were(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """A program may use the packet's control block, which netfilter and IP need afterwards."""
    write = b"".join(
        asm.mov(asm.R2, -1) + asm.store_context_word(CB + 4 * word, asm.R2) for word in range(5)
    )
    read = asm.load_context_word(asm.R0, CB)
    program = socket_filter(make_program, read + write + asm.EXIT)
    links = [
        attach(controller, program, f"nf:inet/{hook}", net.router)
        for hook in ("prerouting", "input", "forward", "output", "postrouting")
    ]
    for address in (net.right_address, net.right_address6, net.router_address):
        # fragments keep their state in the control block
        net.left.ping(address, "-s", "4000")
    for link in links:
        stats = controller.detach(link.id).stats
        assert stats.packets > 0
        # each run found its five words cleared
        assert stats.events == 0


def test_a_slow_program_shows(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """Run counts always grow, run times only while BPF statistics are on."""
    # more take the verifier a minute of an emulated guest
    steps = 40_000
    slow = socket_filter(make_program, asm.spinning(steps, 0), name="slow")
    fast = socket_filter(make_program, asm.returning(0), name="fast")
    links = [attach(controller, program, "nf:inet4/output", net.left) for program in (slow, fast)]
    net.left.ping(net.right_address)
    for link in links:
        slot = controller.link(link.id).stats.slots[Slot.PACKET]
        assert slot.runs > 0
        assert slot.run_time == 0
    rounds = 10
    # of several rounds, for one may count what an interrupt took besides
    least = [math.inf, math.inf]
    statistics = syscalls.enable_run_time()
    try:
        before = [0, 0]
        for _ in range(rounds):
            net.left.ping(net.right_address)
            slots = [controller.link(link.id).stats.slots[Slot.PACKET] for link in links]
            for place, slot in enumerate(slots):
                least[place] = min(least[place], slot.run_time - before[place])
                before[place] = slot.run_time
    finally:
        os.close(statistics)
    print(f"slow: {slots[0]}, fast: {slots[1]}; of a round at least {least} ns")
    assert slots[0].runs == slots[1].runs >= 1 + rounds
    # a step is two instructions, and no machine executes twenty in a nanosecond
    assert least[0] > steps / 10
    assert least[0] > 3 * least[1] > 0


# --- limits, and objects that disappear -----------------------------------------------------------


def test_a_hundred_links(controller: Controller, make_program: MakeProgram, net: Network) -> None:
    program = socket_filter(make_program, of_protocol(UDP))
    with Controller() as owner:
        links = [
            attach(owner, program, f"nf:inet4/output@{number - 50}", net.left)
            for number in range(100)
        ]
        with observing(controller) as observer:
            net.left.call(send_udp, net.right_address, 9, [b"x"] * 3)
            observer.collect(lambda events: len(events) == 300)
        assert {link.stats.events for link in controller.links()} == {3}
        order = [int(e["link"]) for e in observer.events[:100]]
        assert order == [link.id for link in links]
        begin = time.monotonic()
    wait_for(lambda: not controller.links(), what="all links are gone")
    print(f"100 links detached in {time.monotonic() - begin:.3f} s")
    net.left.ping(net.right_address)


def test_as_many_links_as_documented(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """The limit is for netfilter hooks alone: tables have their own."""
    program = socket_filter(make_program, asm.returning(0))
    for _ in range(128):
        attach(controller, program, "nf:inet4/output", net.left)
    with pytest.raises(KernelError, match="as many links") as refused:
        attach(controller, program, "nf:inet6/output", net.left)
    assert refused.value.errno == errno.ENOSPC
    table = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
    net.left.ping(net.right_address)
    controller.detach(table.id)


def test_a_namespace_that_is_deleted_under_traffic(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """Packets keep coming in from outside; the link reports that its hook is gone, and stays."""
    program = socket_filter(make_program, asm.returning(1))
    stop = event()
    with controller.link_changes() as changes:
        with namespace("nf-leaves") as leaving:
            ip_batch(
                net.router.name,
                f"link add r3 type veth peer name eth0 netns {leaving.name}",
                "address add 10.77.3.1/24 dev r3",
                "link set r3 up",
            )
            ip_batch(leaving.name, "address add 10.77.3.2/24 dev eth0", "link set eth0 up")
            inode = leaving.inode
            links = [
                attach(controller, program, "nf:inet4/input", leaving),
                attach(controller, program, "nf:inet/prerouting", leaving),
                attach(controller, program, "nf:netdev/ingress", leaving, device="eth0"),
            ]
            flood = net.router.start(flood_udp, "10.77.3.2", 9, stop)
            wait_for(lambda: all(link.stats.packets for link in controller.links()))
        try:
            wait_for(lambda: all(link.hook.gone for link in controller.links()))
        finally:
            stop.set()
            flood.join(30)
        told = [c for c in changes.read(0) if c.change is Change.CHANGED]
    assert {c.link.id for c in told} == {link.id for link in links}
    for link in links:
        now = controller.link(link.id)
        assert (now.hook.gone, nf_hook(now).registered) == (Gone.NETNS, False)
        assert netns_of(now).inode == inode
        assert now.stats.packets > 0
        # programs and counters are still there, and can be swapped
        swapped = controller.swap(link.id, ProgramSet({Slot.PACKET: program.fd}))
        assert (swapped.generation, swapped.hook.gone) == (2, Gone.NETNS)
        controller.detach(link.id)


def test_a_device_that_is_removed_renamed_or_moved(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    program = socket_filter(make_program, asm.returning(1))
    with controller.link_changes() as changes:
        ip_batch(net.router.name, "link add d1 type dummy", "link add d2 type dummy")
        links = {
            device: attach(controller, program, "nf:netdev/ingress", net.router, device=device)
            for device in ("d1", "d2", "r1")
        }
        ip_batch(net.router.name, "link set d1 name d3")
        assert nf_hook(controller.link(links["d1"].id)).device == "d3"
        ip_batch(net.router.name, "link delete d3", f"link set d2 netns {net.left.name}")
        for device, gone in (("d1", Gone.DEVICE), ("d2", Gone.DEVICE), ("r1", None)):
            now = controller.link(links[device].id)
            assert (now.hook.gone, nf_hook(now).registered) == (gone, gone is None)
        told = [c.link.id for c in changes.read(5) if c.change is Change.CHANGED]
    assert told == [links["d1"].id, links["d2"].id]
    run("ip", "-n", net.left.name, "link", "delete", "d2")
    net.left.ping(net.router_address)
    assert controller.link(links["r1"].id).stats.packets > 0


def test_unloading_is_refused_while_there_are_links(
    controller: Controller, make_program: MakeProgram
) -> None:
    link = attach(controller, socket_filter(make_program, asm.returning(0)), "nf:inet4/output")
    with pytest.raises(AssertionError, match="in use"):
        unload_module()
    assert netns_of(controller.link(link.id)).inode == Path("/proc/1/ns/net").stat().st_ino


def test_links_come_and_go_under_traffic(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """The kernel frees objects that packets may be using; with a swap every packet is seen."""
    program = socket_filter(make_program, asm.returning(0))
    stop = event()
    flood = net.left.start(flood_udp, net.right_address, 9, stop)
    stays = attach(controller, program, "nf:inet4/forward@100", net.router)
    swaps, last = 0, 0
    try:
        while swaps < 30 or not last:
            one = attach(controller, program, "nf:inet4/forward", net.router)
            controller.swap(stays.id, ProgramSet({Slot.PACKET: program.fd}))
            last = controller.detach(one.id).stats.packets
            swaps += 1
    finally:
        stop.set()
        flood.join(30)
    assert controller.link(stays.id).generation == swaps + 1


# --- refusals -------------------------------------------------------------------------------------

Refusal = tuple[dict[str, Any], int, str, str | None]


@pytest.fixture
def refusals(make_program: MakeProgram, net: Network) -> Iterator[list[Refusal]]:
    """Requests to attach that must be refused: attributes, errno, words, bad attribute."""
    good = socket_filter(make_program, asm.returning(0)).fd
    kprobe = make_program().fd
    netns = os.open(net.left.path, os.O_RDONLY | os.O_CLOEXEC)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def programs(slot: int = Slot.PACKET, fd: int = good, **more: Any) -> dict[str, Any]:
        return {"programs": {"program": [{"slot": slot, "fd": fd}], **more}}

    nf = {"hook": Hook.NF, "family": 2, "hooknum": 3}
    table = {"hook": Hook.TABLE, **programs(Slot.RULE, kprobe)}
    ingress = {"hook": Hook.NF, "family": 5, "hooknum": 0, **programs()}
    accept = b"\x06\x00\x00\x00\xff\xff\x00\x00"
    try:
        yield [
            ({"hook": Hook.NF, "hooknum": 3, **programs()}, errno.EINVAL, "its family", "family"),
            ({"hook": Hook.NF, "family": 2, **programs()}, errno.EINVAL, "number", "hooknum"),
            ({**nf, "family": 4, **programs()}, errno.EAFNOSUPPORT, "of family 1", "family"),
            ({**nf, "hooknum": 5, **programs()}, errno.EINVAL, "no hook of this", "hooknum"),
            ({**nf, "family": 3, **programs()}, errno.EINVAL, "no hook of this", "hooknum"),
            ({**nf, "family": 7, "hooknum": 5, **programs()}, errno.EINVAL, "no hook", "hooknum"),
            ({**nf, "family": 1, "hooknum": 6, **programs()}, errno.EINVAL, "no hook", "hooknum"),
            ({**ingress, "hooknum": 1, "ifindex": 1}, errno.EOPNOTSUPP, "not egress", "hooknum"),
            ({**ingress, "hooknum": 2, "ifindex": 1}, errno.EINVAL, "no hook", "hooknum"),
            (ingress, errno.EINVAL, "needs its device", "ifindex"),
            ({**ingress, "ifindex": 9999}, errno.ENODEV, "no such device", "ifindex"),
            ({**nf, "ifindex": 1, **programs()}, errno.EINVAL, "only an ingress", "ifindex"),
            ({**nf, "netns-fd": 999, **programs()}, errno.EBADF, "network namespace", "netns-fd"),
            ({**nf, "netns-fd": nothing, **programs()}, errno.EINVAL, "not of a netw", "netns-fd"),
            ({**nf, "mode": 1, "flags": 2, **programs()}, errno.EINVAL, "filter mode", "flags"),
            ({**nf, "flags": 2, **programs()}, errno.EINVAL, "filter mode", "flags"),
            ({**nf, **programs(Slot.RULE, kprobe)}, errno.EINVAL, "packet slot only", "programs"),
            ({**nf, **programs(fd=kprobe)}, errno.EINVAL, "socket filter", "programs.program.fd"),
            ({**nf, **programs(fd=999)}, errno.EBADF, "no such file", "programs.program.fd"),
            (
                {**nf, "family": 3, "hooknum": 0, **programs(filter=accept)},
                errno.EOPNOTSUPP,
                "ARP has none",
                "programs",
            ),
            ({"hook": Hook.TABLE, **programs()}, errno.EINVAL, "packet slot is of", "programs"),
            ({**table, "hooknum": 3}, errno.EINVAL, "tables have no", "hooknum"),
            ({**table, "priority": 0}, errno.EINVAL, "tables have no", "priority"),
            ({**table, "netns-fd": netns}, errno.EINVAL, "tables have no", "netns-fd"),
            ({**table, "ifindex": 1}, errno.EINVAL, "tables have no", "ifindex"),
            ({**table, "mode": 1}, errno.EINVAL, "tables have no", "mode"),
            ({**table, "flags": 2}, errno.EINVAL, "drops no packets", "flags"),
            (
                {**nf, "programs": {"program": [{"slot": 4, "fd": good, "id": 5}]}},
                errno.EINVAL,
                "for replies",
                "programs.program.id",
            ),
            (
                {**nf, **programs(**{"filter-length": 5})},
                errno.EINVAL,
                "for replies",
                "programs.filter-length",
            ),
        ]
    finally:
        os.close(netns)
        os.close(nothing)


def test_refused_requests_leave_nothing(controller: Controller, refusals: list[Refusal]) -> None:
    with Connection.open() as connection:
        for attributes, number, words, attribute in refusals:
            with pytest.raises(KernelError, match=words) as refused:
                connection.request(Command.ATTACH, attributes, "attaching")
            found = (refused.value.errno, refused.value.attribute)
            assert found == (number, attribute), (attributes, str(refused.value))
            assert controller.links() == []


def test_a_dump_does_not_take_a_link() -> None:
    with Connection.open() as connection, pytest.raises(KernelError) as refused:
        connection._exchange(Command.GET, {"link": 1}, "listing", Flag.DUMP)
    assert refused.value.errno == errno.EINVAL
    if refused_dumps_are_explained():
        assert "a dump is of all links" in refused.value.extack
        assert refused.value.attribute == "link"


def test_an_interface_is_found_by_name_only_where_it_is(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    program = socket_filter(make_program, asm.returning(0))
    link = attach(controller, program, "nf:netdev/ingress", device="lo")
    assert (nf_hook(link).device, nf_hook(link).ifindex) == ("lo", socket.if_nametoindex("lo"))
    there = attach(controller, program, "nf:netdev/ingress", net.router, device="r1")
    assert nf_hook(there).device == "r1"
    with pytest.raises(UsageError, match="no device 'r1'"):
        attach(controller, program, "nf:netdev/ingress", device="r1")
