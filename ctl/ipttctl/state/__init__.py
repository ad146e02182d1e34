# SPDX-License-Identifier: GPL-2.0
"""Declared links, and the steps that make the machine match them.

state = State((DeclaredLink("dns", place, ProgramChoice({Slot.PACKET: Pinned("/x/y")})),))
with Controller() as controller:
    for step in apply_state(controller, state):
        print(step.action, step.name)
"""

from __future__ import annotations

from ipttctl.state.apply import apply_state, diff_state
from ipttctl.state.model import DeclaredLink, DeclaredMap, State, Step, StepAction, Terms
from ipttctl.state.save import SavedState, save_state

__all__ = [
    "DeclaredLink",
    "DeclaredMap",
    "SavedState",
    "State",
    "Step",
    "StepAction",
    "Terms",
    "apply_state",
    "diff_state",
    "save_state",
]
