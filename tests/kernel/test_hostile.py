# SPDX-License-Identifier: GPL-2.0
"""Programs that the verifier accepts and that lean on what surrounds them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ipttctl.bpf import create_map
from ipttctl.controller import Controller
from ipttctl.errors import KernelError
from ipttctl.objects import ProgramSet
from ipttproto import Slot
from tests.kernel.support import assembler as asm
from tests.kernel.support import loader
from tests.kernel.support.kernel import run
from tests.kernel.support.loader import loaded
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Namespace, namespace

PERF_EVENT_ARRAY, STACK_TRACE, RINGBUF = 4, 7, 27
GET_STACKID, PERF_EVENT_OUTPUT, GET_STACK, RINGBUF_OUTPUT = 27, 25, 67, 130
CURRENT_CPU = 0xFFFFFFFF
R6, R7 = 6, 7


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("hostile") as made:
        made.iptables("-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT")
        yield made


def _in_all_slots(controller: Controller, place: Namespace, fd: int) -> None:
    """Run a program in every slot for the packets of a ping."""
    link = controller.attach(ProgramSet(dict.fromkeys(Slot, fd), cookie=7))
    place.ping("127.0.0.1")
    stats = controller.link(link.id).stats
    controller.detach(link.id)
    assert (stats.packets, stats.selected, stats.nested) == (4, 4, 0)
    assert stats.events >= 8


STORE_ZERO = asm.instruction(0x7A, asm.R10, 0, -8, 0)


def _stack_id(map_fd: int) -> bytes:
    return (
        asm.load_map(asm.R2, map_fd) + asm.mov(asm.R3, 0) + asm.call(GET_STACKID)
        + asm.returning(1)
    )  # fmt: skip  # one step of the program a piece


def _stack() -> bytes:
    """bpf_get_stack(ctx, fp - 256, 256, 0)."""
    cleared = b"".join(asm.instruction(0x7A, asm.R10, 0, -8 * n, 0) for n in range(1, 33))
    arguments = (
        asm.mov_reg(asm.R2, asm.R10)
        + asm.instruction(0x07, asm.R2, immediate=-256)
        + asm.mov(asm.R3, 256)
        + asm.mov(4, 0)
    )
    return cleared + arguments + asm.call(GET_STACK) + asm.returning(1)


def _output(helper: int, map_fd: int) -> bytes:
    """Eight bytes to a perf or ring buffer."""
    data = asm.mov_reg(4, asm.R10) + asm.instruction(0x07, 4, immediate=-8)
    if helper == PERF_EVENT_OUTPUT:
        arguments = (
            asm.load_map(asm.R2, map_fd)
            # 32-bit move: BPF_F_CURRENT_CPU has the upper half clear
            + asm.instruction(0xB4, asm.R3, immediate=-1)
            + data
            + asm.mov(5, 8)
        )
    else:
        arguments = (
            asm.load_map(asm.R1, map_fd)
            + asm.mov_reg(asm.R2, asm.R10)
            + asm.instruction(0x07, asm.R2, immediate=-8)
            + asm.mov(asm.R3, 8)
            + asm.mov(4, 0)
        )
    return STORE_ZERO + arguments + asm.call(helper) + asm.returning(1)


@pytest.mark.parametrize("what", ["stackid", "stack", "perf", "ringbuf"])
def test_helpers_that_look_around(controller: Controller, place: Namespace, what: str) -> None:
    shapes = {
        "stackid": (STACK_TRACE, 4, 127 * 8, 64),
        "stack": (2, 4, 8, 1),
        "perf": (PERF_EVENT_ARRAY, 4, 4, 8),
        "ringbuf": (RINGBUF, 0, 0, 4096),
    }
    map_type, key, value, entries = shapes[what]
    fd = create_map(
        what, map_type=map_type, key_size=key, value_size=value, max_entries=entries, flags=0
    )
    code = {
        "stackid": _stack_id(fd),
        "stack": _stack(),
        "perf": _output(PERF_EVENT_OUTPUT, fd),
        "ringbuf": _output(RINGBUF_OUTPUT, fd),
    }[what]
    try:
        with loaded(code) as program:
            _in_all_slots(controller, place, program)
    finally:
        os.close(fd)


def test_loop_to_the_limit(controller: Controller, place: Namespace) -> None:
    """As many instructions as the verifier lets a loop walk: slow, and nothing worse."""
    count = 50_000
    # r6 = count; do { r6 -= 1 } while (r6 != 0); return 1
    code = (
        asm.mov(R6, count)
        + asm.instruction(0x07, R6, immediate=-1)
        + asm.instruction(0x55, R6, 0, -2, 0)
        + asm.returning(1)
    )
    with loaded(code) as program:
        _in_all_slots(controller, place, program)


def test_per_cpu_scratch_is_not_shared_between_slots(
    controller: Controller, place: Namespace
) -> None:
    """The same map counted from all slots: no run is torn by another."""
    with one_element_map() as counter, loaded(asm.counting(counter)) as program:
        link = controller.attach(ProgramSet(dict.fromkeys(Slot, program)))
        run("ip", "netns", "exec", place.name, "ping", "-q", "-f", "-c", "200", "127.0.0.1")
        stats = controller.link(link.id).stats
        controller.detach(link.id)
        assert stats.packets == 800
        assert element(counter) == stats.packets + stats.events


@pytest.mark.parametrize(
    ("program_type", "flags", "attach_type", "number", "words"),
    [
        (loader.KPROBE, loader.F_SLEEPABLE, 0, errno.EOPNOTSUPP, "sleepable"),
        (loader.KPROBE, 0, loader.TRACE_KPROBE_MULTI, errno.EOPNOTSUPP, "another attach type"),
        (loader.KPROBE, 0, loader.TRACE_UPROBE_MULTI, errno.EOPNOTSUPP, "another attach type"),
        (loader.TRACEPOINT, 0, 0, errno.EINVAL, "type kprobe"),
        (loader.PERF_EVENT, 0, 0, errno.EINVAL, "type kprobe"),
        (loader.RAW_TRACEPOINT, 0, 0, errno.EINVAL, "type kprobe"),
    ],
)
def test_refused_at_attach(
    controller: Controller,
    program_type: int,
    flags: int,
    attach_type: int,
    number: int,
    words: str,
) -> None:
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(
                loaded(asm.returning(0), program_type, flags=flags, attach_type=attach_type)
            )
        except OSError as error:
            if not attach_type:
                raise
            pytest.skip(f"this kernel does not know the attach type: {error}")
        with pytest.raises(KernelError, match=words) as refused:
            controller.attach(ProgramSet({Slot.RULE: fd}))
        assert refused.value.errno == number
        assert controller.links() == []
