# SPDX-License-Identifier: GPL-2.0
"""A program that passes every packet: what a link in filter mode has before its own on trial."""

from __future__ import annotations

from typing import Final

from ipttctl.bpf.programs import Program
from ipttctl.programs.sources import program_type
from ipttproto import Slot

#: r0 = 1; exit: in filter mode the packet passes, and there is no event
_PASS: Final = bytes.fromhex("b7000000010000009500000000000000")


def load_passing(slot: Slot) -> Program:
    """Load the program for a slot.

    Raises:
        ProgramError: the verifier refuses it.
        PrivilegeError: the caller may not load programs.
    """
    return Program.load(_PASS, name="pass", type=program_type(slot))
