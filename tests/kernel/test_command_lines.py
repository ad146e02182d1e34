# SPDX-License-Identifier: GPL-2.0
"""Some of the command lines that make no sense, with the module loaded: see tests.command_lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipttctl.link.controller import Controller
from tests.command_lines import Case, Place, cases, faults
from tests.command_lines.running import run
from tests.kernel.support.cli import Server
from tests.kernel.support.kernel import COMMAND_TIMEOUT
from tests.kernel.support.network import Namespace, namespace

#: slow commands, or ones that do not end by themselves; apply and run change the machine
_LEFT_OUT = {
    *("trace", "record", "events", "agent", "attach", "adopt", "run", "doctor", "apply"),
    *("module", "save"),
}
#: of the other command lines one in this many
_EVERY = 7
CASES = [case for case in cases() if case.arguments[0] not in _LEFT_OUT and not case.signal][
    ::_EVERY
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def place() -> Iterator[Namespace]:
    with namespace("lines") as made:
        yield made


def test_they_end_in_one_sentence(server: Server) -> None:
    found = {}
    for case in CASES:
        outcome = run(server, case, patience=COMMAND_TIMEOUT)
        if wrong := faults(case, outcome):
            found[str(case)] = wrong, outcome
    assert not found
    with Controller() as controller:
        assert controller.links() == []


def test_a_trace_that_cannot_be_written_ends(place: Namespace, server: Server) -> None:
    case = Case(("trace", "--lines", "-N", place.name), stdout=Place.FULL)
    outcome = run(server, case, patience=4 * COMMAND_TIMEOUT)
    assert outcome.status == 1
    last = outcome.err.splitlines()[-1]
    assert last == "ipttctl: cannot write to standard output: No space left on device"
    with Controller() as controller:
        assert controller.links() == []
