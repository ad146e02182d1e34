# SPDX-License-Identifier: GPL-2.0
"""Programs that read and write through helpers, in every slot."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from ipttctl.bpf.syscalls import create_map, lookup, next_key
from ipttctl.hooks.hook import Hook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS, Slot
from ipttproto import Hook as HookKind
from tests.kernel.hostile.conftest import COOKIE, RUNS, RunInAllSlots
from tests.kernel.support import assembler as asm
from tests.kernel.support.buffers import perf_buffers, ring_buffer
from tests.kernel.support.loader import loaded
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Namespace

STACK_TRACE = 7
#: addresses that one stack walk here may return
FRAMES = 32
USER_STACK = 1 << 8
REUSE_STACK_ID = 1 << 10
USER_END = 1 << 47
WRITTEN = 0x1122334455667788
#: the function that the context of a program names, by hook and slot
FUNCTIONS: Mapping[int, Mapping[Slot, str]] = {
    HookKind.TABLE: {
        Slot.ENTRY: "ipt_do_table",
        Slot.RULE: "nf_log_trace",
        Slot.EXIT: "ipt_do_table",
    },
    HookKind.CHAIN: dict.fromkeys(TABLE_SLOTS, "nft_do_chain"),
}
MINUS_EFAULT = (1 << 64) - errno.EFAULT
MINUS_ERANGE = (1 << 64) - errno.ERANGE
MINUS_EPERM = (1 << 64) - errno.EPERM


@cache
def symbols() -> list[tuple[int, str]]:
    """The functions of the kernel and its modules, by address."""
    lines = Path("/proc/kallsyms").read_text().splitlines()
    found = (line.split() for line in lines)
    return sorted((int(parts[0], 16), parts[2]) for parts in found if parts[1] in "tTwW")


def names(addresses: Iterator[int] | list[int]) -> list[str]:
    """The functions that contain the addresses, from the innermost."""
    found = []
    for address in addresses:
        below = [name for start, name in symbols() if start <= address]
        found.append(below[-1] if below else f"{address:#x}")
    return found


def _at_each_slot(
    controller: Controller, place: Namespace, code: bytes, hook: Hook
) -> Iterator[Slot]:
    """Run a program in one slot after the other, with programs that select in the others."""
    with loaded(code) as looking, loaded(asm.returning(1)) as plain:
        for slot in TABLE_SLOTS:
            programs = {**dict.fromkeys(TABLE_SLOTS, plain), slot: looking}
            link = controller.attach(hook, ProgramSet(programs, cookie=COOKIE))
            place.ping("127.0.0.1")
            controller.detach(link.id)
            yield slot


def test_cookie_and_function(controller: Controller, place: Namespace, hook: Hook) -> None:
    """The run context holds the cookie; there is no kprobe, and so no probed function."""
    with one_element_map() as kept:
        for _ in _at_each_slot(
            controller, place, asm.storing(kept, asm.call(asm.GET_ATTACH_COOKIE)), hook
        ):
            assert element(kept) == COOKIE
        for _ in _at_each_slot(
            controller, place, asm.storing(kept, asm.call(asm.GET_FUNC_IP)), hook
        ):
            assert element(kept) == 0
        instruction_pointer = asm.storing(kept, asm.load_reg(asm.R0, "ip"))
        found = [
            names([element(kept)])[0]
            for _ in _at_each_slot(controller, place, instruction_pointer, hook)
        ]
        assert found == [FUNCTIONS[hook.KIND][slot] for slot in TABLE_SLOTS]


def _stack_into(map_fd: int, flags: int) -> bytes:
    """bpf_get_stack() into element 0: its result first, then the addresses."""
    size = 8 * FRAMES
    body = asm.mov_reg(asm.R6, asm.R1) + asm.look_up(map_fd, 0)
    walk = (
        asm.mov_reg(asm.R7, asm.R0)
        + asm.mov_reg(asm.R1, asm.R6)
        + asm.mov_reg(asm.R2, asm.R0)
        + asm.add(asm.R2, 8)
        + asm.mov(asm.R3, size)
        + asm.mov(asm.R4, flags)
        + asm.call(asm.GET_STACK)
        + asm.store(asm.R7, asm.R0)
    )
    return body + asm.jump_if_equal(asm.R0, 0, asm.length(walk)) + walk + asm.returning(1)


def _walked(value: bytes) -> list[int]:
    numbers = struct.unpack(f"={1 + FRAMES}Q", value)
    assert 0 < numbers[0] <= 8 * FRAMES, f"bpf_get_stack returned {numbers[0]:#x}"
    return list(numbers[1 : 1 + numbers[0] // 8])


def test_kernel_stack(controller: Controller, place: Namespace, hook: Hook) -> None:
    """A walk begins at the function that the program's context names, and includes its callers."""
    with one_element_map(value_size=8 + 8 * FRAMES) as kept:
        for slot in _at_each_slot(controller, place, _stack_into(kept, 0), hook):
            found = names(_walked(lookup(kept, bytes(4), 8 + 8 * FRAMES) or b""))
            assert found[0] == FUNCTIONS[hook.KIND][slot], found
            assert reaches_the_stack(found), found
            if slot == Slot.RULE and walks_see_every_caller():
                assert FUNCTIONS[hook.KIND][Slot.ENTRY] in found, found


def test_user_stack(controller: Controller, place: Namespace, hook: Hook) -> None:
    """The user stack is the sender's, if there is one; all its addresses are in user space."""
    with one_element_map(value_size=8 + 8 * FRAMES) as kept:
        place.iptables("-A", "OUTPUT", "-p", "udp", "-j", "DROP")
        with loaded(_stack_into(kept, USER_STACK)) as program:
            link = controller.attach(hook, ProgramSet(dict.fromkeys(TABLE_SLOTS, program)))
            place.call(_send_dropped)
            controller.detach(link.id)
        found = _walked(lookup(kept, bytes(4), 8 + 8 * FRAMES) or b"")
        assert all(0 < address < USER_END for address in found), [hex(a) for a in found]


def _send_dropped() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(b"x", ("127.0.0.1", 9))
        except PermissionError:
            return
    raise AssertionError("the datagram was not dropped")


@pytest.mark.parametrize("flags", [0, REUSE_STACK_ID, USER_STACK | REUSE_STACK_ID])
def test_stack_ids(run_in_all_slots: RunInAllSlots, hook: Hook, flags: int) -> None:
    traces = create_map(
        "traces", map_type=STACK_TRACE, key_size=4, value_size=127 * 8, max_entries=1024, flags=0
    )
    try:
        walk = asm.load_map(asm.R2, traces) + asm.mov(asm.R3, flags) + asm.call(asm.GET_STACKID)
        with loaded(walk + asm.returning(1)) as program:
            run_in_all_slots(program)
        key, found = next_key(traces, None, 4), []
        while key is not None:
            value = lookup(traces, key, 127 * 8) or b""
            found.append([a for a in struct.unpack("=127Q", value) if a])
            key = next_key(traces, key, 4)
    finally:
        os.close(traces)
    assert found
    if flags & USER_STACK:
        assert all(address < USER_END for trace in found for address in trace)
    else:
        heads = {names(trace[:1])[0] for trace in found}
        assert heads == set(FUNCTIONS[hook.KIND].values())
        assert all(reaches_the_stack(names(trace)) for trace in found)


def walks_see_every_caller() -> bool:
    """Whether the kernel unwinds with ORC tables.

    With frame pointers (the debug kernel) the caller of a function without a frame is left out.
    """
    return any(name == "unwind_module_init" for _, name in symbols())


def reaches_the_stack(found: list[str]) -> bool:
    """Whether a walk got as far as the caller of the hooks."""
    if walks_see_every_caller():
        return "nf_hook_slow" in found
    return any(name.startswith(("nf_hook", "ip_", "__ip_")) for name in found)


def _data_at_r4() -> bytes:
    return (
        asm.load_wide(asm.R0, WRITTEN)
        + asm.store(asm.R10, asm.R0, -8)
        + asm.stack_address(asm.R4, -8)
    )


def test_perf_output(run_in_all_slots: RunInAllSlots) -> None:
    with perf_buffers() as buffers:
        code = (
            _data_at_r4()
            + asm.load_map(asm.R2, buffers.fd)
            # BPF_F_CURRENT_CPU has the upper half clear: a move of 32 bits
            + asm.instruction(0xB4, asm.R3, immediate=-1)
            + asm.mov(asm.R5, 8)
            + asm.call(asm.PERF_EVENT_OUTPUT)
            + asm.returning(1)
        )
        with loaded(code) as program:
            run_in_all_slots(program)
        records = buffers.records()
    assert [record[:8] for record in records] == [WRITTEN.to_bytes(8, "little")] * RUNS


def test_ring_buffer_output(run_in_all_slots: RunInAllSlots) -> None:
    with ring_buffer() as ring:
        code = (
            _data_at_r4()
            + asm.mov_reg(asm.R2, asm.R4)
            + asm.load_map(asm.R1, ring.fd)
            + asm.mov(asm.R3, 8)
            + asm.mov(asm.R4, 0)
            + asm.call(asm.RINGBUF_OUTPUT)
            + asm.returning(1)
        )
        with loaded(code) as program:
            run_in_all_slots(program)
        assert ring.records() == [WRITTEN.to_bytes(8, "little")] * RUNS


def test_current_task(controller: Controller, place: Namespace, hook: Hook) -> None:
    """The current task is the one in whose context the packet travels."""
    with one_element_map() as kept:
        task = asm.storing(kept, asm.call(asm.GET_CURRENT_TASK))
        for _ in _at_each_slot(controller, place, task, hook):
            assert element(kept) > USER_END


WILD = (
    0, 1, 0xFFF, 0x41414141, USER_END - 8, USER_END, 1 << 63, 0xDEADBEEFDEADBEEF,
    0xFFFFFFFFFF600000, 0xFFFFFFFFFFFFFFFC, (1 << 64) - 1,
)  # fmt: skip  # values, not arguments


@pytest.mark.parametrize("helper", [asm.PROBE_READ_KERNEL, asm.PROBE_READ_USER])
def test_wild_addresses(run_in_all_slots: RunInAllSlots, helper: int) -> None:
    for address in WILD:
        with one_element_map() as kept:
            read = (
                asm.load_wide(asm.R3, address)
                + asm.stack_address(asm.R1, -24)
                + asm.mov(asm.R2, 8)
                + asm.call(helper)
            )
            with loaded(asm.storing(kept, read)) as program:
                run_in_all_slots(program)
            # bpf_probe_read_kernel() rejects user addresses with another errno
            assert element(kept) in {MINUS_EFAULT, MINUS_ERANGE}, hex(address)


def test_printing_at_every_packet(run_in_all_slots: RunInAllSlots) -> None:
    text = b"hostile!"
    code = (
        asm.load_wide(asm.R0, int.from_bytes(text, "little"))
        + asm.store(asm.R10, asm.R0, -16)
        + asm.store_number(asm.R10, -8, 0)
        + asm.stack_address(asm.R1, -16)
        + asm.mov(asm.R2, 9)
        + asm.call(asm.TRACE_PRINTK)
        + asm.returning(1)
    )
    trace = Path("/sys/kernel/tracing/trace")
    trace.write_text("")
    with loaded(code) as program:
        run_in_all_slots(program)
        assert trace.read_text().count("bpf_trace_printk: hostile!") == RUNS
        trace.write_text("")


def test_printing_under_a_flood(controller: Controller, place: Namespace, hook: Hook) -> None:
    text = asm.load_wide(asm.R0, int.from_bytes(b"flood\n\0\0", "little"))
    code = (
        text
        + asm.store(asm.R10, asm.R0, -8)
        + asm.stack_address(asm.R1, -8)
        + asm.mov(asm.R2, 7)
        + asm.call(asm.TRACE_PRINTK)
        + asm.returning(1)
    )
    with loaded(code) as program:
        link = controller.attach(hook, ProgramSet(dict.fromkeys(TABLE_SLOTS, program)))
        place.run("ping", "-q", "-f", "-c", "200", "127.0.0.1")
        stats = controller.detach(link.id).stats
    assert (stats.packets, stats.nested) == (800, 0)
    Path("/sys/kernel/tracing/trace").write_text("")


def test_writing_to_its_sender(controller: Controller, place: Namespace, hook: Hook) -> None:
    """Programs run with softirqs off: the helper sees no process context and writes nothing."""
    place.iptables("-A", "OUTPUT", "-p", "udp", "-j", "DROP")
    victim = ctypes.create_string_buffer(b"untouched", 16)
    with one_element_map() as kept:
        write = (
            asm.load_wide(asm.R1, ctypes.addressof(victim))
            + asm.store_number(asm.R10, -32, 0x41414141)
            + asm.stack_address(asm.R2, -32)
            + asm.mov(asm.R3, 8)
            + asm.call(asm.PROBE_WRITE_USER)
        )

        def send() -> None:
            _send_dropped()
            assert victim.value == b"untouched"

        with loaded(asm.storing(kept, write)) as program:
            link = controller.attach(hook, ProgramSet(dict.fromkeys(TABLE_SLOTS, program)))
            # the child has the buffer at the same address
            place.call(send)
            controller.detach(link.id)
        assert element(kept) == MINUS_EPERM


def _send_until_signalled(times: int) -> None:
    """Send; the program at the hook signals this process; its handler sends again."""
    sent = 0

    def again(*_: object) -> None:
        nonlocal sent
        sent += 1
        if sent < times:
            sender.sendto(b"x", ("127.0.0.1", 9))

    signal.signal(signal.SIGUSR1, again)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", 9))
        while sent < times:
            signal.sigtimedwait([], 0.01)


def test_signalling_its_sender_who_sends_again(
    controller: Controller, place: Namespace, hook: Hook
) -> None:
    """A program cannot send, but its signals can make a process send, again and again."""
    times = 50
    shout = asm.mov(asm.R1, signal.SIGUSR1) + asm.call(asm.SEND_SIGNAL)
    # cx: the process whose system call sends the packet; only that one gets the signal
    entry = asm.load_reg(asm.R6, "cx") + asm.jump_if_equal(asm.R6, 0, 2) + shout
    with loaded(entry + asm.returning(1)) as first, loaded(asm.returning(1)) as last:
        link = controller.attach(
            hook, ProgramSet({Slot.ENTRY: first, Slot.EXIT: last}, filter=_udp())
        )
        place.call(_send_until_signalled, times)
        stats = controller.detach(link.id).stats
    # each datagram passes OUTPUT and INPUT; nobody listens on the port
    assert stats.selected >= 2 * times
    assert stats.nested == 0


def _udp() -> bytes:
    """A filter, as ``udp`` in tcpdump's syntax."""
    return (
        struct.pack("=HBBI", 0x30, 0, 0, 9)  # ldb [9]
        + struct.pack("=HBBI", 0x15, 0, 1, socket.IPPROTO_UDP)
        + struct.pack("=HBBI", 0x06, 0, 0, 1)
        + struct.pack("=HBBI", 0x06, 0, 0, 0)
    )
