# SPDX-License-Identifier: GPL-2.0
"""Reasons for the verifier's refusals, extracted from kernels' logs."""

from __future__ import annotations

import pytest

from ipttctl.bpf.verifier_log import verifier_reason

FIGURES = "processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0"

LOOP = """\
0: R1=ctx() R10=fp0
0: (b7) r0 = 1                        ; R0_w=1
1: (55) if r0 != 0x0 goto pc-2        ; R0_w=1
0: (b7) r0 = 1                        ; R0=1
1: (55) if r0 != 0x0 goto pc-2        ; R0=1
0: (b7) r0 = 1
infinite loop detected at insn 1
cur state: R0_w=1 R1=ctx() R10=fp0
old state: R0_rw=P1 R1=ctx() R10=fp0
"""

UNCHECKED = """\
arg#0 reference type('UNKNOWN ') size cannot be determined: -22
0: R1=ctx() R10=fp0
; __u64 *value = bpf_map_lookup_elem(&hits, &key); @ bad.c:4
0: (b7) r1 = 1                        ; R1=1
1: (63) *(u32 *)(r10 -4) = r1         ; R1=1 R10=fp0 fp-8=mmmm????
2: (bf) r2 = r10                      ; R2=fp0 R10=fp0
;  @ bad.c:0
3: (07) r2 += -4                      ; R2=fp-4
4: (18) r1 = 0xffff888105abca00       ; R1=map_ptr(map=hits,ks=4,vs=8)
6: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=hits,ks=4,vs=8)
7: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
"""

EXPLAINED = """\
0: R1=ctx() R10=fp0
0: (b7) r1 = 5                        ; R1=5
1: (85) call bpf_map_lookup_elem#1
R1 type=scalar expected=map_ptr

Verification failed: Call Type Safety: Invalid call argument

Reason:
  The first argument (R1) to bpf_map_lookup_elem does not satisfy the verifier contract: it has type
  scalar, but this argument accepts map_ptr.

At:
  insn 1
       | ^-- error: invalid first argument (R1) for bpf_map_lookup_elem
  Instruction context:
      0 | (b7) r1 = 5
  >>> 1 | (85) call bpf_map_lookup_elem#1
      2 | (95) exit

Causal path:
  insn 0
       | ^-- update: R1 changed from context pointer at offset 0 to integer scalar value 5
  Instruction context:
  >>> 0 | (b7) r1 = 5
      1 | (85) call bpf_map_lookup_elem#1
      2 | (95) exit

Suggestion:
  Pass a value with one of the accepted pointer or scalar types for this call.

"""

UNREACHABLE = """\
unreachable insn 2

Verification failed: Program Structure: Unreachable instruction

Reason:
  Instruction 2 is not reachable from the program entry point.

Suggestion:
  Remove the unreachable instruction or add valid control flow that reaches it.

"""


@pytest.mark.parametrize(
    ("kernel", "log", "reason"),
    [
        ("6.12", "0: R1=ctx() R10=fp0\n0: (95) exit\nR0 !read_ok\n", "R0 !read_ok"),
        ("6.12", LOOP, "infinite loop detected at insn 1"),
        ("6.18", UNCHECKED, "R0 invalid mem access 'map_value_or_null'"),
        ("6.18", "unreachable insn 2\n", "unreachable insn 2"),
        ("7.3", EXPLAINED, "R1 type=scalar expected=map_ptr"),
        ("7.3", UNREACHABLE, "unreachable insn 2"),
    ],
)
def test_the_reason(kernel: str, log: str, reason: str) -> None:
    assert verifier_reason(log + FIGURES) == reason, kernel


def test_where_there_is_none() -> None:
    assert verifier_reason("") == ""
    assert verifier_reason("0: R1=ctx() R10=fp0\n0: (b7) r0 = 0 ; R0=0\n" + FIGURES) == ""
