# SPDX-License-Identifier: GPL-2.0
"""The module's part in an upgrade: links are parked and restored, and nothing is in their way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import ExpectationError, KernelError, ModuleError, NameTakenError
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.host import module
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.link.restore import Restorer
from ipttctl.link.wire import Connection
from ipttproto import Command, NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.kernel import MODULE, load_module, loaded_modules, unload_module


@pytest.fixture(autouse=True)
def loaded_again() -> Iterator[None]:
    """Loads the module anew: links may still be parked, or restored, when a test fails."""
    yield
    if MODULE in loaded_modules():
        with Controller() as controller:
            for link in controller.links():
                controller.detach(link.id, force=True)
        unload_module()
    load_module()


def test_the_module_refuses(make_program: MakeProgram) -> None:
    """While links are parked nobody makes others; a link that is restored is one of before."""
    programs = ProgramSet({Slot.PACKET: make_program(type=ProgramType.SOCKET_FILTER).fd})
    hook = NfHook.parse("nf:inet4/output", mode=NfMode.FILTER)
    with Controller() as controller, Restorer() as restorer, Connection.open() as connection:
        link = controller.attach(hook, programs, persistent=True, name="kept")
        found = restorer.snapshot()
        (one,) = found.records
        with pytest.raises(KernelError, match=r"no links are being restored.*attribute restore"):
            restorer.restore(one)
        with pytest.raises(ExpectationError, match="links have changed since then"):
            restorer.park(found.numbers.sequence - 1, force=False, reason="")
        owned = controller.attach(hook, programs)
        with pytest.raises(KernelError, match=r"owns (a )?link") as refused:
            restorer.park(None, force=False, reason="")
        assert refused.value.errno == errno.EBUSY
        controller.detach(owned.id)
        restorer.park(None, force=False, reason="")
        # once more, and nothing is forgotten
        restorer.park(None, force=False, reason="")
        assert (restorer.links(), list(restorer.parked())) == ([], [link.id])
        for persistent in (True, False):
            with pytest.raises(KernelError, match="`ipttctl module upgrade` completes that"):
                controller.attach(hook, programs, persistent=persistent)

        def restore(**changes: Any) -> list[dict[str, Any]]:
            with ExitStack() as opened:
                request = one.request(opened)
                flags = changes.pop("flags", request["flags"])
                wrong = request["restore"] | changes
                kept = {name: value for name, value in wrong.items() if value is not None}
                request |= {"flags": flags, "restore": kept}
                return connection.request(Command.ATTACH, request, "restoring")

        past = dict(one.history[0])
        program = past["program"][0]
        for wrong, why, number in (
            ({"link": owned.id + 1}, "no link of before had this id", errno.EINVAL),
            ({"link": None}, "needs its id and its generation", errno.EINVAL),
            ({"generation": None}, "needs its id and its generation", errno.EINVAL),
            ({"violation": {"link": 1}}, "needs its condition and its link", errno.EINVAL),
            ({"flags": 0}, "only a persistent link is restored", errno.EINVAL),
            ({"past": [past] * 17}, "more generations than a history has", errno.E2BIG),
            (
                {"past": [past | {"program": [program | {"tag": b"short"}]}]},
                "needs its id and its tag",
                errno.EINVAL,
            ),
            ({"past": [past | {"program": [{"id": 1}]}]}, "no slot is given", errno.EINVAL),
            ({"stats": {"slot": [{"runs": 1}]}}, "no slot is given", errno.EINVAL),
        ):
            with pytest.raises(KernelError, match=why) as refused:
                restore(**wrong)
            assert refused.value.errno == number
        (back,) = restore()
        with pytest.raises(NameTakenError, match="there is a link with this id"):
            restore()
        changes: tuple[Callable[[], Any], ...] = (
            lambda: controller.rename("kept", "other"),
            lambda: controller.swap("kept", programs),
            lambda: controller.shadow("kept", programs),
            lambda: controller.adopt("kept"),
            lambda: controller.release("kept"),
            lambda: controller.detach("kept"),
        )
        for change in changes:
            with pytest.raises(KernelError, match="completes that") as refused:
                change()
            assert refused.value.errno == errno.EBUSY
        restorer.restored()
        assert one.same(Link.from_attributes(back))
        assert restorer.parked() == {}
        controller.detach(controller.rename("kept", "other").id)


def test_the_next_module_takes_no_other_persistent_link(make_program: MakeProgram) -> None:
    """One that somebody owns for the moment cannot become one; and numbers have an end."""
    file = Path(os.environ["IPTTRACE_KO"])
    unload_module()
    with pytest.raises(ModuleError, match=r"(?i)invalid (argument|parameters)"):
        module.insert(file, f"restore_link={(1 << 32) - 1}", "restore_sequence=9")
    assert MODULE not in loaded_modules()
    module.insert(file, "restore_link=7", "restore_sequence=9")
    programs = ProgramSet({Slot.ENTRY: make_program().fd})
    with Controller() as controller, Restorer() as restorer:
        link = controller.attach(TableHook(), programs)
        assert link.id == 8
        with pytest.raises(KernelError, match="completes that"):
            controller.release(link.id)
        restorer.restored()
        assert controller.release(link.id).persistent
        controller.detach(link.id)
