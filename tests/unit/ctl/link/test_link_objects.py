# SPDX-License-Identifier: GPL-2.0
"""Links and statuses of a module that reports little, perhaps of another build."""

from __future__ import annotations

from typing import Any

import pytest

from ipttctl.families import NfFamily
from ipttctl.hooks.hook import UnknownHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.model import HistoryEntry, Link, LinkStats, ModuleStatus, SlotStats
from ipttctl.system.netns import Identity
from ipttproto import Hook, Loss, Slot

NOTHING: dict[str, Any] = {
    "id": 0, "hook": UnknownHook(0), "flags": 0, "programs": {}, "filter": None,
    "filter_length": 0, "cookie": 0, "generation": 0, "owner_portid": 0, "owner_pid": 0,
    "owner_comm": "", "payload_map": 0, "payload_size": 0, "rollback_in": None,
}  # fmt: skip  # as a table


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ({}, {}),
        ({"hook": Hook.NF}, {"hook": NfHook(0, 0, netns=Identity(0, 0))}),
        (
            {"hook": Hook.NF, "family": 5},
            {"hook": NfHook(NfFamily.NETDEV, 0, netns=Identity(0, 0))},
        ),
        ({"hook": Hook.TABLE, "family": 10}, {"hook": TableHook(6)}),
        ({"hook": Hook.TABLE, "family": 2}, {"hook": TableHook(4)}),
        ({"hook": 9, "gone": 99}, {"hook": UnknownHook(9)}),
        ({"rollback-in": 0}, {"rollback_in": 0.0}),
        ({"rollback-in": 1500}, {"rollback_in": 1.5}),
        ({"programs": {"program": [{"slot": 99}, {}]}}, {}),
    ],
)
def test_a_link(said: dict[str, Any], means: dict[str, Any]) -> None:
    found = Link.from_attributes(said)
    assert {name: getattr(found, name) for name in NOTHING} == NOTHING | means
    assert found.stats == LinkStats()


def test_programs_and_counters_of_which_little_is_said() -> None:
    found = Link.from_attributes({
        "programs": {"program": [{"slot": Slot.RULE}]},
        "stats": {"packets": 7, "slot": [{"slot": Slot.RULE, "runs": 3}, {"slot": 99}, {}]},
    })  # fmt: skip  # pairs together
    [(slot, program)] = found.programs.items()
    assert (slot, program.id, program.tag, program.name) == (Slot.RULE, 0, "", "")
    assert found.stats.packets == 7
    assert found.stats.slots == {Slot.RULE: SlotStats(3, 0)}


def test_an_entry_of_the_history() -> None:
    found = HistoryEntry.from_attributes({})
    assert (found.generation, found.action, found.time) == (0, 0, 0)
    assert (found.pid, found.uid, found.comm, found.programs) == (0, 0, "", {})


def test_a_status_in_several_parts() -> None:
    assert ModuleStatus.from_attributes([]) == ModuleStatus("", 0, ())
    first = {"module-version": "1", "fingerprint": 5, "cpu": [{"cpu": 1, "sequence": 4}]}
    found = ModuleStatus.from_attributes([first, {"cpu": [{"lost-ring": 2}]}, {}])
    assert (found.version, found.fingerprint) == ("1", 5)
    none = dict.fromkeys(Loss, 0)
    assert [(cpu.cpu, cpu.sequence, dict(cpu.lost)) for cpu in found.cpus] == [
        (1, 4, none), (0, 0, none | {Loss.RING: 2}),
    ]  # fmt: skip  # pairs together
