# SPDX-License-Identifier: GPL-2.0
"""Walks inside walks, deeper than the module follows: nothing changes, and stacks suffice.

A connection to port 81 of the own host:

    SYN leaves          out: copied (dup), and the copy comes in before the rule ends
      SYN comes in      in: answered by a reset (reject)
        RST leaves      out: answered by an ICMP error (reject)
          ICMP leaves   out: copied
            copy leaves out: one deeper than four
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from ipttctl.bpf.syscalls import lookup
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Kind
from tests.kernel.support import assembler as asm
from tests.kernel.support import perf
from tests.kernel.support.kernel import run, settled
from tests.kernel.support.loader import loaded
from tests.kernel.support.maps import one_element_map
from tests.kernel.support.network import Namespace, namespace
from tests.kernel.support.observing import observing

RULES = """
table ip nest {
    chain out {
        type filter hook output priority 0;
        counter
        tcp flags rst counter reject with icmp type port-unreachable
        tcp dport 81 counter dup to 127.0.0.2
        meta l4proto icmp counter dup to 127.0.0.2
    }
    chain in {
        type filter hook input priority 0;
        counter
        tcp dport 81 counter reject with tcp reset
        meta l4proto icmp counter
    }
}
"""
#: two walks, both on the stack of whoever sends
TWO_RULES = """
table ip nest {
    chain out { type filter hook output priority 0; udp dport 82 reject; }
}
"""

WalkKind = type[ChainHook] | type[SpineHook]

TIMES = 20
LINKS = 3
#: NESTED_WALKS of follow.c
WALKS = 4


@contextmanager
def ruled(rules: str) -> Iterator[Namespace]:
    """A network namespace with rules, whose ICMP errors are not limited."""
    with namespace("nest") as made:
        made.run("sysctl", "-qw", "net.ipv4.icmp_ratemask=0")
        nft(made, rules)
        yield made


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


def connect() -> None:
    """Send a SYN for each connection. Its answers are rejected: nobody hears of them."""
    for _ in range(TIMES):
        with socket.socket() as connecting:
            connecting.setblocking(False)
            assert connecting.connect_ex(("127.0.0.1", 81)) == errno.EINPROGRESS


def send_rejected() -> None:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with datagrams as sender, suppress(PermissionError, ConnectionRefusedError):
        sender.sendto(b"x", ("127.0.0.1", 82))


def counters(where: Namespace) -> dict[str, tuple[int, int]]:
    """The packets and bytes of each rule with a counter."""
    listed = where.run("nft", "list", "table", "ip", "nest")
    found: dict[str, tuple[int, int]] = {}
    chain = ""
    for line in listed.splitlines():
        if named := re.search(r"chain (\w+)", line):
            chain = named[1]
        if counted := re.search(r"counter packets (\d+) bytes (\d+)", line):
            rule = line.replace(counted[0], "").strip()
            found[f"{chain}: {rule}"] = int(counted[1]), int(counted[2])
    return found


@contextmanager
def links(
    controller: Controller,
    where: Namespace,
    *programs: int,
    kinds: tuple[WalkKind, ...] = (ChainHook,),
) -> Iterator[list[Link]]:
    """A link of each kind for each program, which is in all of its slots."""
    descriptor = os.open(where.path, os.O_RDONLY)
    try:
        made = [
            controller.attach(kind(netns=descriptor), ProgramSet(dict.fromkeys(kind.SLOTS, fd)))
            for kind in kinds
            for fd in programs
        ]
    finally:
        os.close(descriptor)
    try:
        yield made
    finally:
        for link in made:
            controller.detach(link.id)


def test_deeper_than_the_module_follows(controller: Controller) -> None:
    found = []
    for followed in (False, True):
        with ExitStack() as stack:
            place = stack.enter_context(ruled(RULES))
            program = stack.enter_context(loaded(asm.returning(1)))
            programs = [program] * LINKS if followed else []
            made = stack.enter_context(links(controller, place, *programs))
            observer = stack.enter_context(observing(controller))
            place.call(connect)
            counted = settled(partial(counters, place))
            found.append(counted)
            events = observer.complete()
            stats = [controller.link(link.id).stats for link in made]
            for link, one in zip(made, stats, strict=True):
                assert one == stats[0]
                ends = [
                    event
                    for event in events
                    if event["link"] == link.id and event["kind"] == Kind.CHAIN_EXIT
                ]
                assert len(ends) == one.selected - one.nested
    assert found[0] == found[1]
    packets = sum(found[1][f"{chain}: "][0] for chain in ("out", "in"))
    assert stats[0].packets == stats[0].selected == packets > 6 * TIMES
    print(f"{packets} packets, {stats[0].nested} of them too deep to be followed")
    # with PREEMPT_RT softirqs are tasks of their own, with stacks of their own
    if "-rt" not in os.uname().release:
        assert stats[0].nested > 0


# --- stacks -------------------------------------------------------------------------------------


def _greatest(offset: int, register: int) -> bytes:
    """Keep the greatest value of a register in the map value that r0 points to."""
    keep = asm.store(asm.R0, register, offset)
    at_least = asm.instruction(0x3D, asm.R4, register, asm.length(keep))
    return asm.load(asm.R4, asm.R0, offset) + at_least + keep


def _with_value(map_fd: int, body: bytes) -> bytes:
    """A program that has its context in r6 and the map's value in r0, and returns 1."""
    head = asm.mov_reg(asm.R6, asm.R1) + asm.look_up(map_fd, 0)
    return head + asm.jump_if_equal(asm.R0, 0, asm.length(body)) + body + asm.returning(1)


def _program_depth(map_fd: int) -> bytes:
    """Keep the most stack from the entry of nft_do_chain() to the frame of this program."""
    subtract = asm.instruction(0x1F, asm.R2, asm.R1)
    # a frame pointer becomes a number in the map
    here = asm.store(asm.R0, asm.R10, 8) + asm.load(asm.R1, asm.R0, 8)
    entered = asm.load(asm.R2, asm.R6, asm.REGS["sp"])
    return _with_value(map_fd, here + entered + subtract + _greatest(0, asm.R2))


def _extent(map_fd: int) -> bytes:
    """Keep the greatest stack pointer of its context, and the greatest complement of it."""
    complement = asm.mov_reg(asm.R3, asm.R2) + asm.instruction(0xA7, asm.R3, immediate=-1)
    body = asm.load(asm.R2, asm.R6, asm.REGS["sp"]) + complement
    return _with_value(map_fd, body + _greatest(0, asm.R2) + _greatest(8, asm.R3))


def _numbers(map_fd: int) -> tuple[int, int]:
    value = lookup(map_fd, bytes(4), 16) or bytes(16)
    return int.from_bytes(value[:8], "little"), int.from_bytes(value[8:], "little")


def _between_two_entries(where: Namespace) -> int:
    """The stack from one entry of nft_do_chain() to that of the packet which its rule sends."""
    with (
        one_element_map(value_size=16) as kept,
        loaded(_extent(kept)) as program,
        perf.program_at_kprobe(program, "nft_do_chain", at_return=False),
    ):
        where.call(send_rejected)
        outer, inner = _numbers(kept)
    assert outer, "nothing got to nft_do_chain()"
    return outer - (inner ^ (1 << 64) - 1)


def stack_size() -> int:
    """The bytes of a task's stack in the kernel: KASAN doubles them (THREAD_SIZE, x86-64)."""
    configuration = Path("/proc/config.gz")
    if configuration.exists() and b"CONFIG_KASAN=y" in gzip.decompress(configuration.read_bytes()):
        return 32768
    return 16384


@pytest.mark.parametrize(
    "kinds", [(ChainHook,), (ChainHook, SpineHook)], ids=["chains", "chains-and-spine"]
)
def test_stack_of_nested_walks(controller: Controller, kinds: tuple[WalkKind, ...]) -> None:
    """All walks that may nest on a stack take less than half of it beyond what the kernel takes.

    A datagram is rejected while it leaves, by an ICMP error that leaves on the same stack.
    """
    with ExitStack() as stack:
        place = stack.enter_context(ruled(TWO_RULES))
        alone = _between_two_entries(place)
        kept = stack.enter_context(one_element_map(value_size=16))
        measuring = stack.enter_context(loaded(_program_depth(kept)))
        observer = stack.enter_context(observing(controller))
        made = stack.enter_context(links(controller, place, *[measuring] * LINKS, kinds=kinds))
        walked = _between_two_entries(place)
        depth = _numbers(kept)[0]
        assert observer.complete()
        assert controller.link(made[0].id).stats.packets == 2
    more = walked - alone
    print(
        f"{os.uname().release}: stack from one nft_do_chain() to the next inside it: {alone} bytes,"
        f" {walked} in a walk, so {more} more; {depth} from there to the frame of a program"
    )
    assert 0 < more < depth + alone
    assert WALKS * more < stack_size() / 2
    assert 0 < depth < stack_size() / 4
