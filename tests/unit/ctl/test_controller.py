# SPDX-License-Identifier: GPL-2.0
"""The verbs: what each asks of the module, and what it makes of the answer."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

from ipttctl.controller import Controller
from ipttctl.errors import ExpectationError, KernelError, LinkGoneError, ModuleError
from ipttctl.objects import ProgramInfo, ProgramSet
from ipttproto import FINGERPRINT, Command, Hook, LinkFlag, Slot
from tests.unit.ctl.support import FakeModule, RefusalError, link, no_such_link, status


@pytest.fixture
def controller(module: FakeModule) -> Iterator[Controller]:
    for command in (Command.ATTACH, Command.SWAP, Command.DETACH, Command.GET):
        module.handlers[command] = lambda *_: [link()]
    with Controller(module.connect) as controller:
        yield controller


def test_attach_sends_the_program_set(module: FakeModule, controller: Controller) -> None:
    programs = ProgramSet({Slot.ENTRY: 5, Slot.RULE: 6}, filter=bytes(16), cookie=9)
    controller.attach(programs, family=6, persistent=True)
    assert module.requested(Command.ATTACH) == [
        {
            "hook": Hook.TABLE,
            "family": 10,
            "flags": LinkFlag.PERSISTENT,
            "programs": {
                "program": [{"slot": 1, "fd": 5}, {"slot": 2, "fd": 6}],
                "filter": bytes(16),
                "cookie": 9,
            },
        }
    ]


def test_attach_leaves_out_what_is_not_asked_for(
    module: FakeModule, controller: Controller
) -> None:
    controller.attach(ProgramSet({Slot.ENTRY: 5}))
    assert module.requested(Command.ATTACH) == [
        {"hook": Hook.TABLE, "programs": {"program": [{"slot": 1, "fd": 5}]}}
    ]


def test_link_is_what_the_module_said(controller: Controller) -> None:
    found = controller.link(3)
    assert (found.id, found.hook, found.family, found.generation) == (3, Hook.TABLE, None, 2)
    assert found.programs == {
        Slot.ENTRY: ProgramInfo(12, "0001020304050607", "trace_entry"),
        Slot.EXIT: ProgramInfo(13, "0" * 16, ""),
    }
    assert (found.filter_length, found.cookie) == (4, 5)
    assert (found.owner_portid, found.owner_pid, found.owner_comm) == (77, 1234, "ipttctl")
    assert (found.armed, found.waiting) == (frozenset({4}), frozenset({6}))
    assert (found.stats.packets, found.stats.nested) == (9, 1)
    assert not found.persistent


def test_swap_sends_what_it_expects(module: FakeModule, controller: Controller) -> None:
    controller.swap(
        3,
        ProgramSet({Slot.EXIT: 7}),
        expect_generation=2,
        expect_programs={Slot.EXIT: 13, Slot.RULE: 0},
    )
    assert module.requested(Command.SWAP) == [
        {
            "link": 3,
            "expect-generation": 2,
            "expect-program": [{"slot": 3, "id": 13}, {"slot": 2, "id": 0}],
            "programs": {"program": [{"slot": 3, "fd": 7}]},
        }
    ]


def test_failed_expectation(module: FakeModule, controller: Controller) -> None:
    def refuse(*_: Any) -> Any:
        raise RefusalError(
            errno.ESTALE, {"message": "the link is of another generation than expected"}
        )

    module.handlers[Command.SWAP] = refuse
    with pytest.raises(ExpectationError, match="swapping link 3: the link is of another"):
        controller.swap(3, ProgramSet({Slot.EXIT: 7}), expect_generation=9)


def test_link_that_is_gone(module: FakeModule, controller: Controller) -> None:
    module.handlers[Command.DETACH] = no_such_link
    with pytest.raises(LinkGoneError, match=r"detaching link 8: there is no such link \[ENOENT\]"):
        controller.detach(8)


def test_links_come_by_id(module: FakeModule, controller: Controller) -> None:
    module.handlers[Command.GET] = lambda *_: [link(link=9), link(link=2)]
    assert [found.id for found in controller.links()] == [2, 9]


def test_status_gathers_the_cpus(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [status([5, 6], [(1, 2, 3), (0, 0, 0)])]
    with Controller(module.connect) as controller:
        found = controller.status()
    assert (found.version, found.fingerprint) == ("0.1.0", FINGERPRINT)
    assert [(cpu.cpu, cpu.sequence, list(cpu.lost.values())) for cpu in found.cpus] == [
        (0, 5, [1, 2, 3]),
        (1, 6, [0, 0, 0]),
    ]


def test_module_of_another_build_is_refused(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [status(fingerprint=FINGERPRINT ^ 1)]
    with pytest.raises(ModuleError, match=r"different builds.*module build"):
        Controller(module.connect)
    with Controller(module.connect, check=False) as controller:
        assert controller.status().fingerprint == FINGERPRINT ^ 1


def test_streams_that_cannot_begin_leave_no_descriptor(
    module: FakeModule, controller: Controller
) -> None:
    def refuse(*_: Any) -> Any:
        raise RefusalError(errno.ENOMEM)

    module.handlers[Command.STATS] = refuse
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
    with pytest.raises(KernelError):
        controller.events()
    module.groups.clear()
    with pytest.raises(ModuleError, match="no group 'links'"):
        controller.link_changes()
    # the module's ends of the two connections stay with it
    assert len(set(os.listdir("/proc/self/fd")) - before) == 2  # noqa: PTH208 - numbers, not paths


def test_a_module_that_does_not_say_what_it_did(module: FakeModule, controller: Controller) -> None:
    module.handlers[Command.DETACH] = lambda *_: []
    with pytest.raises(ModuleError, match="did it and did not say what it is now"):
        controller.detach(3)
