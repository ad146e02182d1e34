# SPDX-License-Identifier: GPL-2.0
"""A storm to warm up, the storm, and a check of the leftovers."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ipttctl.bpf.filters import compile_filter
from ipttctl.link.controller import Controller
from tests.kernel.support.kernel import (
    MODULE,
    KernelLog,
    Remains,
    kernel_log,
    load_module,
    loaded_modules,
    splats,
    trust_walk,
    wait_for,
)
from tests.storm.actor import delete_module
from tests.storm.journal import Record
from tests.storm.memory import TOLERANCE_KIB, Memory, conceals_frees, settled
from tests.storm.processors import switchable
from tests.storm.shared import FAMILIES
from tests.storm.stage import WANTED, WANTED_OF_CPUS, WANTED_SOON, Plan, StormError, storm
from tests.storm.table_modules import load_helpers, unload_tables

_WARM_UP_SECONDS = 3.0
#: seconds of a storm in which everything has to happen, however long that takes
_LONG = 60.0
#: how long background frees may take on a slow machine
_PATIENCE = 600.0


@dataclass(frozen=True)
class Calm:
    """The kernel without anything of the module's, as far as visible."""

    remains: Remains
    memory: Memory


def run(
    seed: int,
    seconds: float,
    round_seconds: float,
    directory: Path,
    say: Callable[[str], None],
) -> None:
    """Run the whole storm; its journal is in ``directory`` afterwards.

    Raises:
        StormError: the reason for a failure.
    """
    wanted = WANTED_SOON
    if seconds >= _LONG:
        wanted = WANTED | WANTED_OF_CPUS if switchable() else WANTED
    round_seconds = min(round_seconds, max(4.0, seconds / 4))
    plan = Plan(str(seed), seconds, round_seconds, max(_PATIENCE, 2 * seconds), wanted)
    warm_up = replace(
        plan, seed=f"{seed}/warm-up", seconds=0, round_seconds=_WARM_UP_SECONDS,
        wanted=frozenset({"tables-unloaded-4", "tables-unloaded-6"}),
    )  # fmt: skip  # pairs together
    say(f"storm: seed {seed}, {seconds:g} s, journal {directory / 'storm.log'}")
    was_loaded = MODULE in loaded_modules()
    record = Record(directory / "storm.log")
    try:
        with kernel_log() as log:
            say("warming up")
            _storm_and_calm(warm_up, record, log)
            before = _calm(log)
            record.sums.clear()
            say(f"in the calm: {before.memory}")
            _storm_and_calm(plan, record, log)
            after = _calm(log)
            _compare(before, after, say)
    finally:
        record.close()
        say("what happened:")
        for action, count in sorted(record.sums.items()):
            say(f"  {action:<22}{count:7}")
    if was_loaded:
        load_module()


def _storm_and_calm(plan: Plan, record: Record, log: KernelLog) -> None:
    if MODULE not in loaded_modules():
        load_module()
    # others may have loaded it, and the walk not be verified
    trust_walk()
    _import_all()
    _no_links("before the storm")
    try:
        storm(plan, record)
    except StormError as error:
        raise StormError("\n".join([str(error), *_splats(log)])) from error
    _no_links("after the storm")
    wait_for(lambda: loaded_modules()[MODULE] == 0, timeout=_PATIENCE, what="no references")
    if not delete_module(MODULE):
        raise StormError("the module does not unload")


def _no_links(when: str) -> None:
    with Controller() as controller:
        if links := controller.links():
            raise StormError(f"there are links {when}: {links}")


def _import_all() -> None:
    """Import now everything that the controller imports when it is first needed.

    Otherwise each of hundreds of processes would do it for itself, for seconds.
    """
    with Controller() as controller, controller.events() as events:
        events.read(0)
    compile_filter("udp")
    # children share these objects, and their collectors skip them
    gc.freeze()


def _splats(log: KernelLog) -> list[str]:
    lines = log.new_lines()
    return lines if splats(lines) else []


def _calm(log: KernelLog) -> Calm:
    """Check that nothing of the module's is loaded and that the log is clean."""
    for family in FAMILIES:
        what = f"nothing refers to the tables of IPv{family}"
        wait_for(partial(unload_tables, family), timeout=_PATIENCE, what=what)
    load_helpers()
    if complaints := _splats(log):
        raise StormError("\n".join(["the kernel complains:", *complaints]))
    return Calm(Remains.now(), settled())


def _compare(before: Calm, after: Calm, say: Callable[[str], None]) -> None:
    remains = after.remains
    with suppress(AssertionError):
        wait_for(lambda: not Remains.now().since(before.remains), timeout=_PATIENCE)
        remains = Remains.now()
    if left := remains.since(before.remains):
        raise StormError(f"left behind: {', '.join(left)}")
    change = after.memory - before.memory
    if why := conceals_frees():
        say(f"memory: {change}; says nothing here: {why}")
        return
    say(f"memory: {change}, of {TOLERANCE_KIB} KiB that it may grow")
    if change.total > TOLERANCE_KIB:
        raise StormError(f"memory is not back: {change}")
