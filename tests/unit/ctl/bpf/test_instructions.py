# SPDX-License-Identifier: GPL-2.0
"""Bytecode: finding and patching 64-bit loads, reading verifier logs, markers of constants."""

from __future__ import annotations

import pytest

from ipttctl.bpf import instructions
from ipttctl.bpf.specs import CONST_MARK, const_marker
from ipttctl.errors import ProgramError
from tests.unit.ctl.bpf.support import EXIT, example_spec, wide


def test_wide_loads_are_found_by_position_and_not_inside_each_other() -> None:
    # The second half of a load looks like any other instruction.
    code = EXIT + wide(0x18_0000_0018) + wide(5, source=1) + EXIT
    loads = instructions.wide_loads(code)
    assert [(load.index, load.source, load.value) for load in loads] == [
        (1, 0, 0x18_0000_0018),
        (3, 1, 5),
    ]
    assert [instructions.is_map_load(load) for load in loads] == [False, True]


def test_a_truncated_wide_load_is_no_load() -> None:
    assert instructions.wide_loads(EXIT + wide(1)[:8]) == []


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1, -1])
def test_a_patched_load_keeps_everything_but_its_value(value: int) -> None:
    code = bytearray(EXIT + wide(0x1122334455667788, register=3) + EXIT)
    instructions.set_wide_load(code, 1, value)
    assert bytes(code) == EXIT + wide(value % (1 << 64), register=3) + EXIT


def test_marks_carry_the_hash_that_the_header_computes() -> None:
    # Computed by the header's macro.
    assert const_marker("want") == CONST_MARK << 32 | 0xFDF6D7BF
    assert const_marker("want_address_high") == CONST_MARK << 32 | 0x18FC5587


def test_constants_take_their_values_and_others_are_zero() -> None:
    spec = example_spec()
    assert spec.instructions("first") == wide(0) + wide(7) + EXIT
    spec.set_constants({"limit": 1 << 40})
    assert spec.instructions("first") == wide(1 << 40) + wide(7) + EXIT
    spec.set_constants({"flag": -1})
    assert spec.instructions("second") == wide(0, register=1, source=1) + wide(0xFF) + EXIT


def test_the_spec_keeps_its_marks_so_that_it_can_be_loaded_again() -> None:
    spec = example_spec()
    spec.set_constants({"limit": 1})
    spec.instructions("first")
    spec.set_constants({"limit": 2})
    assert spec.instructions("first") == wide(2) + wide(7) + EXIT


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limt": 1}, "no constant limt; there are: flag, limit"),
        ({"flag": 256}, "constant flag has 8 bits, which cannot hold 256"),
        ({"flag": -129}, "cannot hold -129"),
    ],
)
def test_wrong_constants_are_refused_and_change_nothing(
    values: dict[str, int], message: str
) -> None:
    spec = example_spec()
    with pytest.raises(ProgramError, match=message):
        spec.set_constants({"limit": 3} | values)
    assert spec.values == {}


def test_an_undeclared_mark_is_an_error() -> None:
    spec = example_spec()
    del spec.constants["limit"]
    with pytest.raises(ProgramError, match="first uses a constant or a field that is not declared"):
        spec.instructions("first")
