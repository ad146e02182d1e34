# SPDX-License-Identifier: GPL-2.0
"""The moment at which a swap asks to be answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipttctl.errors import ModuleError
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet, Swap
from ipttproto import Command, Feature, Slot, SwapAck
from tests.unit.ctl.support import FakeModule, link, status


@pytest.fixture
def controller(module: FakeModule) -> Iterator[Controller]:
    module.handlers[Command.SWAP] = module.handlers[Command.TRANSACT] = lambda *_: [link()]
    with Controller(module.connect) as controller:
        yield controller


@pytest.mark.parametrize(
    ("how", "sent"),
    [
        ({}, SwapAck.PUBLISHED),
        ({"wait": True}, None),
        ({"expedite": True}, SwapAck.EXPEDITED),
        ({"wait": True, "expedite": True}, SwapAck.EXPEDITED),
        # a swap that can be rolled back is answered at the end of the old sets anyway
        ({"rollback_after": 1}, None),
        ({"rollback_after": 1, "expedite": True}, SwapAck.EXPEDITED),
    ],
)
def test_when_a_swap_is_answered(
    module: FakeModule, controller: Controller, how: dict[str, Any], sent: SwapAck | None
) -> None:
    controller.swap(3, ProgramSet({Slot.EXIT: 7}), **how)
    controller.transact([Swap(3, ProgramSet({Slot.EXIT: 7}))], **how)
    requests = module.requested(Command.SWAP) + module.requested(Command.TRANSACT)
    assert [request.get("swap-ack") for request in requests] == [sent, sent]


def test_an_older_module_answers_at_the_end(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [status(features=Feature.SHADOWS)]
    module.handlers[Command.SWAP] = lambda *_: [link()]
    with Controller(module.connect) as controller:
        swapped = controller.swap(3, ProgramSet({Slot.EXIT: 7}))
        assert swapped.ended is None
        with pytest.raises(ModuleError, match="when a swap is answered"):
            controller.swap(3, ProgramSet({Slot.EXIT: 7}), expedite=True)
    [sent] = module.requested(Command.SWAP)
    assert "swap-ack" not in sent
