# SPDX-License-Identifier: GPL-2.0
"""Programs that depend on maps: full and allocating ones, walks, kernel pointers in values."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ipttctl.bpf.syscalls import create_map, next_key
from ipttctl.hooks.hook import Hook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS
from tests.kernel.hostile.conftest import RUNS, RunInAllSlots
from tests.kernel.support import assembler as asm
from tests.kernel.support.btf import Types
from tests.kernel.support.loader import LoadError, loaded, loaded_btf, typed_map
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Namespace

HASH, ARRAY, PERCPU_HASH, LRU_HASH = 1, 2, 5, 9
NO_PREALLOC = 1
KERNEL_ADDRESSES = 1 << 63


@contextmanager
def _hash(map_type: int, entries: int, flags: int = 0) -> Iterator[int]:
    """A map with keys and values of eight bytes."""
    fd = create_map(
        "hash", map_type=map_type, key_size=8, value_size=8, max_entries=entries, flags=flags
    )
    try:
        yield fd
    finally:
        os.close(fd)


def _keys(fd: int) -> int:
    count, key = 0, next_key(fd, None, 8)
    while key is not None:
        count, key = count + 1, next_key(fd, key, 8)
    return count


def _update(map_fd: int) -> bytes:
    """Add an element whose key is the time."""
    return (
        asm.call(asm.KTIME_GET_NS)
        + asm.store(asm.R10, asm.R0, -32)
        + asm.load_map(asm.R1, map_fd)
        + asm.stack_address(asm.R2, -32)
        + asm.stack_address(asm.R3, -32)
        + asm.mov(asm.R4, 0)
        + asm.call(asm.MAP_UPDATE_ELEM)
    )


def _delete(map_fd: int) -> bytes:
    """Remove the element that ``_update`` added last."""
    return (
        asm.load_map(asm.R1, map_fd)
        + asm.stack_address(asm.R2, -32)
        + asm.call(asm.MAP_DELETE_ELEM)
    )


def test_a_map_that_is_full(run_in_all_slots: RunInAllSlots) -> None:
    with one_element_map() as kept, _hash(HASH, 3) as full:
        with loaded(asm.storing(kept, _update(full))) as program:
            run_in_all_slots(program)
        assert _keys(full) == 3
        # 6.1 returns an int in a register of 64 bits
        assert element(kept) & 0xFFFFFFFF == (1 << 32) - errno.E2BIG


@pytest.mark.parametrize("map_type", [HASH, PERCPU_HASH, LRU_HASH])
def test_a_map_that_allocates_at_every_packet(
    run_in_all_slots: RunInAllSlots, map_type: int
) -> None:
    flags = 0 if map_type == LRU_HASH else NO_PREALLOC
    with _hash(map_type, 10_000, flags) as grows:
        with loaded(_update(grows) + asm.returning(1)) as program:
            run_in_all_slots(program)
        assert _keys(grows) == RUNS


@pytest.mark.parametrize("map_type", [HASH, PERCPU_HASH])
def test_allocating_and_freeing_under_a_flood(
    controller: Controller, place: Namespace, map_type: int, hook: Hook
) -> None:
    with ExitStack() as stack:
        kept = stack.enter_context(one_element_map())
        churned = stack.enter_context(_hash(map_type, 10_000, NO_PREALLOC))
        code = asm.storing(kept, _update(churned) + _delete(churned))
        program = stack.enter_context(loaded(code))
        link = controller.attach(hook, ProgramSet(dict.fromkeys(TABLE_SLOTS, program)))
        place.run("ping", "-q", "-f", "-c", "300", "127.0.0.1")
        stats = controller.detach(link.id).stats
        assert (stats.packets, stats.nested) == (1200, 0)
        assert element(kept) == 0
        assert _keys(churned) == 0


def test_the_same_element_from_all_slots_under_a_flood(
    controller: Controller, place: Namespace, hook: Hook
) -> None:
    """Every run is counted once."""
    with one_element_map() as counter, loaded(asm.counting(counter)) as program:
        link = controller.attach(hook, ProgramSet(dict.fromkeys(TABLE_SLOTS, program)))
        place.run("ping", "-q", "-f", "-c", "200", "127.0.0.1")
        stats = controller.detach(link.id).stats
        assert (stats.packets, stats.nested) == (800, 0)
        assert element(counter) == stats.packets + stats.events


def test_walking_a_map(run_in_all_slots: RunInAllSlots) -> None:
    """bpf_for_each_map_elem calls a function of the program for each element."""
    types = Types()
    main = types.function("main", [("ctx", types.void_pointer)])
    each = types.function(
        "each",
        [(name, types.void_pointer) for name in ("map", "key", "value", "ctx")],
    )
    with ExitStack() as stack:
        kept = stack.enter_context(one_element_map())
        walked = stack.enter_context(_hash(HASH, 64))
        btf = stack.enter_context(loaded_btf(types.blob()))
        rest = asm.mov(asm.R3, 0) + asm.mov(asm.R4, 0) + asm.call(asm.FOR_EACH_MAP_ELEM)
        head = _update(walked) + asm.load_map(asm.R1, walked)
        tail = asm.storing(kept, b"")
        callback = asm.load_function(asm.R2, 2 + asm.length(rest + tail))
        body = head + callback + rest + tail
        code = body + asm.returning(0)
        program = stack.enter_context(
            loaded(code, btf=btf, functions=[(0, main), (asm.length(body), each)])
        )
        run_in_all_slots(program)
        assert element(kept) == _keys(walked) == RUNS


def test_a_kernel_pointer_in_a_value(run_in_all_slots: RunInAllSlots) -> None:
    """A program keeps its task in a map; the kernel calls such pointers untrusted."""
    code: bytes = b""
    for tag in ("kptr_untrusted", "kptr"):  # since 6.4, and before
        types = Types()
        task = types.struct("task_struct", 8, [("raw", types.u64, 0)])
        pointer = types.pointer(types.tagged(tag, task))
        value = types.struct("value", 8, [("task", pointer, 0)])
        with ExitStack() as stack:
            btf = stack.enter_context(loaded_btf(types.blob()))
            keeps = stack.enter_context(
                typed_map(ARRAY, 8, btf=btf, key_type=types.u32, value_type=value)
            )
            keep = asm.store(asm.R0, asm.R6)
            code = (
                asm.call(asm.GET_CURRENT_TASK_BTF)
                + asm.mov_reg(asm.R6, asm.R0)
                + asm.look_up(keeps, 0)
                + asm.jump_if_equal(asm.R0, 0, asm.length(keep))
                + keep
                + asm.returning(1)
            )
            try:
                program = stack.enter_context(loaded(code))
            except LoadError:
                if tag == "kptr":
                    raise
                continue
            run_in_all_slots(program)
            return
