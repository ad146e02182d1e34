# SPDX-License-Identifier: GPL-2.0
"""Slow programs: as slow as the verifier lets them be."""

from __future__ import annotations

import errno
from contextlib import ExitStack

import pytest

from tests.kernel.hostile.conftest import RUNS, RunInAllSlots
from tests.kernel.support import assembler as asm
from tests.kernel.support.btf import GLOBAL, STATIC, Types
from tests.kernel.support.loader import LoadError, loaded, loaded_btf
from tests.kernel.support.maps import element, one_element_map

#: iterations of a loop: the verifier walks a million instructions (BPF_COMPLEXITY_LIMIT_INSNS),
#: and compares states at each iteration, so that short ones would take it minutes
TURN = 100
TURNS = 9_990
ITERATIONS = 1 << 18


def _loop(turns: int) -> bytes:
    body = asm.mov(asm.R0, 1) * (TURN - 2) + asm.add(asm.R6, -1)
    again = asm.jump_unless_equal(asm.R6, 0, -TURN)
    return asm.mov(asm.R6, turns) + body + again + asm.returning(1)


def test_a_loop_to_the_limit(run_in_all_slots: RunInAllSlots) -> None:
    """The longest loop is slow and does no harm; a longer one does not load."""
    with loaded(_loop(TURNS)) as program:
        run_in_all_slots(program)
    with pytest.raises(LoadError) as refused, loaded(_loop(TURNS * 2), explain=False):
        pass
    assert refused.value.errno == errno.E2BIG


def test_a_long_program(run_in_all_slots: RunInAllSlots) -> None:
    """A program without a jump runs at its full length."""
    with loaded(asm.mov(asm.R0, 1) * 100_000 + asm.EXIT) as program:
        run_in_all_slots(program)


def test_bpf_loop(run_in_all_slots: RunInAllSlots) -> None:
    """The verifier walks the function of bpf_loop() once: it may run far longer than a loop."""
    types = Types()
    main = types.function("main", [("ctx", types.void_pointer)])
    each = types.function("each", [("index", types.u32), ("ctx", types.void_pointer)])
    with ExitStack() as stack:
        kept = stack.enter_context(one_element_map())
        btf = stack.enter_context(loaded_btf(types.blob()))
        rest = asm.mov(asm.R3, 0) + asm.mov(asm.R4, 0) + asm.call(asm.LOOP)
        tail = asm.storing(kept, b"")
        body = (
            asm.mov(asm.R1, ITERATIONS)
            + asm.load_function(asm.R2, 2 + asm.length(rest + tail))
            + rest
            + tail
        )
        program = stack.enter_context(
            loaded(
                body + asm.returning(0),
                btf=btf,
                functions=[(0, main), (asm.length(body), each)],
            )
        )
        run_in_all_slots(program)
        assert element(kept) == ITERATIONS


@pytest.mark.parametrize("linkage", [STATIC, GLOBAL], ids=["static", "global"])
def test_functions_of_its_own(run_in_all_slots: RunInAllSlots, linkage: int) -> None:
    """Functions call functions to the verifier's limit of eight frames."""
    types = Types()
    with ExitStack() as stack:
        counter = stack.enter_context(one_element_map())
        pieces, functions = [], []
        for depth in range(8):
            inside = asm.counting(counter) if depth == 7 else b""
            step = asm.mov(asm.R1, depth) + asm.call_function(2) + asm.EXIT
            pieces.append(inside or step)
            name, parameter = f"f{depth}", ("x", types.s32)
            if depth == 0:
                parameter = ("ctx", types.void_pointer)
            kind = types.function(name, [parameter], linkage if depth else GLOBAL)
            functions.append((asm.length(b"".join(pieces[:-1])), kind))
        btf = stack.enter_context(loaded_btf(types.blob()))
        code = b"".join(pieces)
        program = stack.enter_context(loaded(code, btf=btf, functions=functions))
        run_in_all_slots(program)
        assert element(counter) == RUNS
