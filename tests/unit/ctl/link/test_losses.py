# SPDX-License-Identifier: GPL-2.0
"""Loss totals compared with a model that knows the losses and their causes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from ipttctl.link.losses import LossCounter, Losses
from ipttctl.link.model import CpuStatus
from ipttproto import EventBatch, Loss, parse_batch
from tests.unit.ctl.support import batch_payload, event


def batch(count: int, sequence: int, lost: tuple[int, int, int], cpu: int = 0) -> EventBatch:
    payload = batch_payload([event()] * count, cpu=cpu, sequence=sequence, lost=lost)
    return parse_batch(payload)


def status(sequence: int, lost: tuple[int, int, int] = (0, 0, 0), cpu: int = 0) -> CpuStatus:
    return CpuStatus(cpu, sequence, {cause: lost[cause] for cause in Loss})


@dataclass
class Cpu:
    """The module's state of a CPU: numbers events, loses some, sends the rest in batches."""

    number: int
    sequence: int = 0
    lost: list[int] = field(default_factory=lambda: [0, 0, 0])

    def status(self) -> CpuStatus:
        """The CPU's part of a stats reply."""
        return status(self.sequence, tuple(self.lost), self.number)  # type: ignore[arg-type]  # three numbers


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["seen", "observer", "ring", "memory", "nested"]),
        st.integers(0, 2),
        st.integers(1, 9),
    ),
    max_size=40,
)


@given(before=STEPS, during=STEPS)
def test_totals_are_what_the_model_lost(
    before: list[tuple[str, int, int]], during: list[tuple[str, int, int]]
) -> None:
    cpus = [Cpu(n) for n in range(3)]
    truth = dict.fromkeys(("seen", "observer", "ring", "memory", "nested"), 0)

    def run(steps: list[tuple[str, int, int]], counter: LossCounter | None) -> None:
        for what, number, count in steps:
            cpu = cpus[number]
            first = cpu.sequence
            if what == "nested":
                cpu.lost[Loss.NESTED] += count
            else:
                cpu.sequence += count
            if what == "ring":
                cpu.lost[Loss.RING] += count
            if what == "memory":
                cpu.lost[Loss.MEMORY] += count
            if counter:
                truth[what] += count
                if what == "seen":
                    lost = (cpu.lost[0], cpu.lost[1], cpu.lost[2])
                    assert counter.add(batch(count, first, lost, number)) == 0

    run(before, None)
    counter = LossCounter(cpu.status() for cpu in cpus)
    run(during, counter)
    final = [cpu.status() for cpu in cpus]
    assert truth["observer"] or not counter.awaits(final)
    counter.finish(final)
    assert counter.totals() == Losses(
        truth["observer"], truth["ring"], truth["memory"], truth["nested"]
    )


def test_events_before_the_beginning_are_cut_off_and_not_counted() -> None:
    counter = LossCounter([status(100)])
    assert counter.add(batch(8, 90, (0, 0, 0))) == 8
    assert counter.add(batch(4, 98, (0, 0, 0))) == 2
    assert counter.totals() == Losses()
    counter.finish([status(105)])
    assert counter.totals() == Losses(observer=3)


def test_events_on_their_way_are_awaited() -> None:
    counter = LossCounter([status(100)])
    assert not counter.awaits([status(100)])
    assert counter.awaits([status(104)])
    assert counter.awaits([status(0), status(3, cpu=1)])
    # the module lost one, and one is still to come
    counter.add(batch(2, 100, (0, 0, 0)))
    assert counter.awaits([status(104, (1, 0, 0))])
    assert not counter.awaits([status(104, (1, 1, 0))])


def test_events_before_one_that_came_are_not_awaited() -> None:
    counter = LossCounter([status(0)])
    counter.add(batch(1, 9, (0, 0, 0)))
    assert not counter.awaits([status(10)])
    assert counter.awaits([status(11)])


def test_gap_without_a_cause_is_this_observers() -> None:
    counter = LossCounter([status(0)])
    counter.add(batch(2, 0, (0, 0, 0)))
    counter.add(batch(2, 5, (0, 0, 0)))
    assert counter.totals() == Losses(observer=3)
    assert counter.totals().events == 3


def test_tail_that_never_came_is_lost_after_finish() -> None:
    counter = LossCounter([status(0)])
    counter.add(batch(2, 0, (0, 0, 0)))
    assert counter.totals().events == 0
    counter.finish([status(7, (1, 0, 0))])
    assert counter.totals() == Losses(observer=4, ring=1)


def test_module_losses_that_run_ahead_of_the_batches_are_not_negative() -> None:
    counter = LossCounter([status(0)])
    counter.add(batch(2, 0, (50, 0, 0)))
    assert counter.totals().observer == 0


def test_cpu_that_came_later_counts_from_zero() -> None:
    counter = LossCounter([status(0)])
    counter.finish([status(0), status(4, (4, 0, 0), cpu=1)])
    assert counter.totals() == Losses(ring=4)
