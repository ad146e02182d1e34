# SPDX-License-Identifier: GPL-2.0
"""Links that outlive the module while everybody else uses it: parked, and restored in the next one.

The module is the same build again, and there is no journal: tests/kernel/test_upgrade.py has these.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import ExpectationError, KernelError
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.host import module
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, LinkStats, ProgramSet
from ipttctl.link.restore import LinkRecord, Numbers, Restorer
from ipttproto import NfMode, Slot, Walk
from tests.kernel.support import assembler as asm
from tests.storm.actor import delete_module
from tests.storm.links import all_links
from tests.storm.shared import Shared

WaitUntil = Callable[[Callable[[], bool], str], None]

_REASON = "storm"
#: others are using the module, or change it faster than it can be read
_LATER = frozenset({errno.EBUSY, errno.EINTR})


@dataclass(frozen=True)
class _Parked:
    records: tuple[LinkRecord, ...]
    numbers: Numbers


def upgrade(shared: Shared, wait_until: WaitUntil) -> str:
    """Take some links over to the next module; returns what they are, in words.

    All other links end, those of processes by force.
    """
    with ExitStack() as end:
        links = _attach(end)
        journey = _journey(end)
        parked: list[_Parked] = []

        def park() -> bool:
            try:
                parked.append(_park({link.id for link in links}))
            except (ExpectationError, KernelError) as error:
                if isinstance(error, KernelError) and error.errno not in _LATER:
                    raise
                return False
            return True

        # swaps of others wait, and their links have shadows
        wait_until(park, "the links are parked")
        wait_until(lambda: delete_module(module.NAME), "the module is unloaded")
        shared.count_reload()
        restored = _restore(parked[0])
        with Controller() as controller:
            # ids are not given again
            assert journey not in {link.id for link in all_links(controller)}
            for before, link in zip(links, restored, strict=True):
                last = controller.detach(link.id)
                assert (last.id, last.generation) == (before.id, before.generation)
                assert last.programs == before.programs
    words = [f"link {link.id} met {link.stats.packets} packets" for link in restored]
    return ", ".join([*words, f"journey {journey} ended"])


def _attach(end: ExitStack) -> list[Link]:
    """Persistent links of both kinds, one of them swapped."""
    programs = {
        kind: end.enter_context(Program.load(asm.returning(1), name="upgraded", type=kind))
        for kind in (ProgramType.KPROBE, ProgramType.SOCKET_FILTER)
    }
    wanted: list[tuple[Hook, Slot, ProgramType]] = [
        (TableHook(4), Slot.RULE, ProgramType.KPROBE),
        (TableHook(6), Slot.ENTRY, ProgramType.KPROBE),
        (NfHook.parse("nf:inet/output", mode=NfMode.FILTER), Slot.PACKET,
         ProgramType.SOCKET_FILTER),
    ]  # fmt: skip  # a link together
    with Controller() as controller:
        links = [
            controller.attach(hook, ProgramSet({slot: programs[kind].fd}), persistent=True)
            for hook, slot, kind in wanted
        ]
        _, slot, kind = wanted[-1]
        links[-1] = controller.swap(links[-1].id, ProgramSet({slot: programs[kind].fd}))
    return links


def _journey(end: ExitStack) -> int:
    """A journey with a link on it, of a controller that stays: neither can be taken over."""
    program = end.enter_context(Program.load(asm.returning(1), name="not_upgraded")).fd
    owner = end.enter_context(Controller())
    journey = owner.attach(JourneyHook(), ProgramSet({Slot.STEP: program}))
    on_it = ProgramSet({Slot.EXIT: program})
    assert owner.attach(SpineHook(), on_it, journey=journey.id).journey == journey.id
    return journey.id


def _park(wanted: set[int]) -> _Parked:
    with Restorer() as restorer:
        records = [r for r in restorer.snapshot().records if r.link.id in wanted]
        restorer.park(None, force=True, reason=_REASON)
        # links of processes have ended, and the journey with them
        assert restorer.links() == []
        counters, status = restorer.parked(), restorer.status()
    assert {record.link.id for record in records} == wanted
    return _Parked(
        tuple(record.counted(counters[record.link.id]) for record in records),
        Numbers(status.links_sequence, status.last_link),
    )


def _restore(parked: _Parked) -> list[Link]:
    module.insert(
        Path(os.environ["IPTTRACE_KO"]),
        f"restore_link={parked.numbers.last_link}",
        f"restore_sequence={parked.numbers.sequence}",
    )
    with Controller() as controller:
        controller.end_verification(Walk.VERIFIED, although_not_compared=True)
    found = []
    with Restorer() as restorer:
        for record in parked.records:
            link = restorer.restore(record)
            assert record.same(link), f"parked {record.link}, restored {link}"
            assert _grown(record.link.stats, link.stats), f"{record.link.stats} -> {link.stats}"
            found.append(link)
        restorer.restored()
    return found


def _grown(before: LinkStats, after: LinkStats) -> bool:
    return after.packets >= before.packets and after.selected >= before.selected
