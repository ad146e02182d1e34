# SPDX-License-Identifier: GPL-2.0
"""The networks, the actors and their supervisor."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.kernel.support.network import Network, network
from tests.storm.accounting import AccountantActor
from tests.storm.actor import Actor, Child, waiting_where
from tests.storm.chains import ChainsActor
from tests.storm.controllers import ControllerActor, KillerActor
from tests.storm.journal import Record
from tests.storm.journeys import FollowerActor
from tests.storm.namespaces import NamespacesActor
from tests.storm.observers import ObserverActor
from tests.storm.processors import ProcessorsActor, all_on_line, switchable
from tests.storm.rules import RulesActor
from tests.storm.shared import Phase, Shared
from tests.storm.table_modules import TableModulesActor
from tests.storm.traffic import TrafficActor
from tests.storm.unloader import UnloaderActor

#: actions that must have happened; the storm continues until then
WANTED = frozenset({
    "attach", "attach-nf", "attach-chain", "attach-spine", "commit", "swap", "swap-refused",
    "transaction", "transaction-refused", "confirm", "rolled-back", "detach", "disconnect", "kill",
    "adopt",
    "observer-comes", "observer-goes", "observer-killed", "overrun", "namespace-made",
    "namespace-gone", "hook-gone", "restore-4", "restore-6", "tables-unloaded-4",
    "tables-unloaded-6", "target-unloaded", "unload-refused", "reload", "upgrade", "round",
    "traffic", "attach-journey", "release-refused", "journey-end", "journey-outlives",
    "follow-copied", "follow-dropped", "follow-used-up", "follow-at-socket", "follow-part",
    "follow-crossing",
})  # fmt: skip  # pairs together
#: those that a short storm waits for; the others may take ten minutes of an emulated guest to come
WANTED_SOON = frozenset({
    "attach", "attach-chain", "attach-journey", "attach-spine", "commit", "detach",
    "observer-comes", "round", "swap", "traffic",
})  # fmt: skip  # pairs together
#: the number of rounds that a slow machine has for these actions, however long they take
_ROUNDS = 12
#: after a failure, the time for the others to end by themselves and stop their children
_LAST_SECONDS = 30

WANTED_OF_CPUS = frozenset({"cpu-off", "cpu-on"})


class StormError(Exception):
    """An error, with the actor."""


@dataclass(frozen=True)
class Plan:
    """The length of the storm, and its seed.

    The storm lasts for ``seconds`` at least, in rounds of ``round_seconds``; ``patience`` is for
    how long an actor may be silent, and how long the storm waits, or twelve rounds if they take
    longer, for actions that have not happened yet.
    """

    seed: str
    seconds: float
    round_seconds: float
    patience: float
    wanted: frozenset[str]


def cast(plan: Plan, record: Record, shared: Shared, net: Network) -> list[Actor]:
    """All actors."""
    common = (plan.seed, record.journal, shared)
    places = (net.left, net.router, net.right)
    actors: list[Actor] = [
        TrafficActor("traffic-right", *common, net.left, net.right_address),
        TrafficActor("traffic-right6", *common, net.left, net.right_address6),
        TrafficActor("traffic-left", *common, net.right, net.left_address),
        TrafficActor("traffic-left6", *common, net.right, net.left_address6),
        *(ControllerActor(f"controller-{number}", *common, places) for number in (1, 2)),
        *(KillerActor(f"killer-{number}", *common, places) for number in (1, 2)),
        *(ObserverActor(f"observers-{number}", *common) for number in (1, 2)),
        RulesActor("rules", *common, places),
        ChainsActor("chains", *common, places),
        NamespacesActor("namespaces", *common, net.router),
        TableModulesActor("table-modules", *common, places),
        UnloaderActor("unloader", *common),
        FollowerActor("follower", *common, places),
    ]
    if switchable():
        actors.append(ProcessorsActor("processors", *common))
    actors.append(AccountantActor("accountant", *common, plan.round_seconds))
    return actors


def storm(plan: Plan, record: Record) -> None:
    """Run the storm to its end; no actor is left afterwards.

    Raises:
        StormError: an actor failed, hangs or died; or an action never happened.
    """
    shared = Shared()
    try:
        with network("storm") as net:
            children: dict[str, Child] = {}
            try:
                for actor in cast(plan, record, shared, net):
                    children[actor.name] = Child(actor.run)
                _supervise(plan, record, shared, children)
            finally:
                shared.phase = Phase.END
                end = time.monotonic() + _LAST_SECONDS
                for child in children.values():
                    child.process.join(max(0.0, end - time.monotonic()))
                    child.kill()
    finally:
        shared.remove()
        all_on_line()


def _supervise(plan: Plan, record: Record, shared: Shared, children: dict[str, Child]) -> None:
    begin = time.monotonic()
    sums_before = dict(record.sums)
    running = dict(children)
    record.last = dict.fromkeys(running, (begin, "(nothing yet)"))

    def times(action: str) -> int:
        return record.sums[action] - sums_before.get(action, 0)

    def missing() -> list[str]:
        return sorted(action for action in plan.wanted if not times(action))

    def patient(now: float) -> bool:
        return now - begin < plan.patience or times("round") < _ROUNDS

    with _Waiter(record, running) as wait:
        while running:
            for name in wait(1.0):
                status = running.pop(name).wait()
                if status and not record.failures:
                    raise StormError(
                        f"{name} ended with status {status}; last: {_last(record, name)}"
                    )
            if record.failures:
                raise StormError("\n".join(record.failures))
            now = time.monotonic()
            if now - begin >= plan.seconds and not (missing() and patient(now)):
                shared.finish = True
            for name, child in running.items():
                if now - record.last[name][0] > plan.patience:
                    # its Python stack goes to standard error
                    os.kill(child.pid, signal.SIGUSR1)
                    raise StormError(
                        f"{name} has been silent for {plan.patience:g} s; last: "
                        f"{_last(record, name)}; it is in: {waiting_where(child.pid)}"
                    )
    if never := missing():
        raise StormError(f"never happened: {', '.join(never)}")


def _last(record: Record, name: str) -> str:
    return record.last.get(name, (0, "(nothing)"))[1]


class _Waiter:
    """Reads the journal, and reports the actors that have ended."""

    def __init__(self, record: Record, running: dict[str, Child]) -> None:
        self._record = record
        self._poll = select.poll()
        self._poll.register(record.fileno(), select.POLLIN)
        self._names = {os.pidfd_open(child.pid): name for name, child in running.items()}

    def __enter__(self) -> Callable[[float], list[str]]:
        for pidfd in self._names:
            self._poll.register(pidfd, select.POLLIN)
        return self._wait

    def _wait(self, seconds: float) -> list[str]:
        ready = [fd for fd, _ in self._poll.poll(round(seconds * 1000))]
        ended = [fd for fd in ready if fd in self._names]
        # after the ends, so that their last lines are included
        self._record.read()
        for pidfd in ended:
            self._poll.unregister(pidfd)
        return [self._names[pidfd] for pidfd in ended]

    def __exit__(self, *_: object) -> None:
        for pidfd in self._names:
            os.close(pidfd)
