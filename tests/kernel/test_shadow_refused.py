# SPDX-License-Identifier: GPL-2.0
"""Shadows that could change something: refused with a sentence, and nothing is left of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Btf
from ipttctl.errors import ExpectationError, KernelError
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet, Swap
from ipttproto import NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support import loader
from tests.kernel.support.btf import GLOBAL, Types
from tests.kernel.support.kernel import load_test_module, remove_module
from tests.kernel.support.loader import attached, loaded, loaded_btf, map_of_maps, module_function
from tests.kernel.support.maps import ARRAY
from tests.kernel.support.nf import attach, socket_filter

HOOK = "nf:inet4/output"
HASH, LRU_HASH = 1, 9
RDONLY_PROG = 1 << 7
KFUNCS = "kfunc_offer"


@pytest.fixture
def link(controller: Controller, make_program: MakeProgram) -> Link:
    """A link that decides, with a program that uses no map."""
    return attach(
        controller, socket_filter(make_program, asm.returning(1)), HOOK, mode=NfMode.FILTER
    )


@contextmanager
def some_map(map_type: int = ARRAY, flags: int = 0) -> Iterator[int]:
    fd = syscalls.create_map(
        "some", map_type=map_type, key_size=4, value_size=8, max_entries=4, flags=flags
    )
    try:
        yield fd
    finally:
        os.close(fd)


def using(map_fd: int, value: int = 1) -> bytes:
    """A program that looks something up in a map."""
    return asm.look_up(map_fd, 0) + asm.returning(value)


Filter = Callable[[bytes], ProgramSet]


@pytest.fixture
def packet(make_program: MakeProgram) -> Filter:
    """Makes a set of a socket filter."""
    return lambda code: ProgramSet({Slot.PACKET: socket_filter(make_program, code).fd})


def as_they_are(controller: Controller) -> list[Link]:
    """All links, without the time that is left to confirm a swap."""
    return [replace(link, rollback_in=None) for link in controller.links()]


def refused(
    controller: Controller, link: Link, programs: ProgramSet, number: int, words: str
) -> KernelError:
    """The refusal of a shadow, which leaves nothing."""
    before = as_they_are(controller)
    with pytest.raises(KernelError, match=words) as error:
        controller.shadow(link.id, programs)
    assert error.value.errno == number, str(error.value)
    assert as_they_are(controller) == before
    return error.value


def test_links_without_verdicts(
    controller: Controller, make_program: MakeProgram, packet: Filter
) -> None:
    """Only what decides can be compared: not what observes, not links at tables."""
    shadow = packet(asm.returning(1))
    observing = attach(controller, socket_filter(make_program, asm.returning(1)), HOOK)
    table = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
    for link in (observing, table):
        error = refused(controller, link, shadow, errno.EOPNOTSUPP, "has no verdicts to compare")
        assert error.attribute == "link"


def test_states_in_which_a_link_gets_no_shadow(
    controller: Controller, link: Link, packet: Filter
) -> None:
    """One shadow at a time, none while a roll-back waits, and no swap beside one."""
    one, two = packet(asm.returning(0)), packet(asm.returning(1))
    with pytest.raises(ExpectationError, match="another generation"):
        controller.shadow(link.id, one, expect_generation=2)
    with pytest.raises(ExpectationError, match="another program"):
        controller.shadow(link.id, one, expect_programs={Slot.PACKET: 0})
    kprobe_slot = ProgramSet({Slot.ENTRY: one.programs[Slot.PACKET]})
    refused(controller, link, kprobe_slot, errno.EINVAL, "not of a BPF program of type kprobe")
    controller.swap(link.id, two, rollback_after=3600)
    refused(controller, link, one, errno.EINPROGRESS, "waits to be confirmed or rolled")
    controller.confirm(link.id)
    now = controller.shadow(link.id, one)
    refused(controller, link, two, errno.EBUSY, "has a shadow already: promote it or drop it")
    other = attach_another(controller, packet)
    for swaps in ([Swap(link.id, two)], [Swap(other.id, two), Swap(link.id, two)]):
        with pytest.raises(KernelError, match="promote it or drop it before another swap") as error:
            controller.transact(swaps)
        assert error.value.errno == errno.EBUSY
    with pytest.raises(KernelError, match="promote it or drop it before another swap"):
        controller.swap(link.id, two, force=True)
    assert controller.links() == [now, other]


def attach_another(controller: Controller, packet: Filter) -> Link:
    return controller.attach(NfHook.parse(HOOK), packet(asm.returning(1)))


def test_programs_whose_effects_cannot_be_checked(
    controller: Controller, link: Link, packet: Filter
) -> None:
    words = "a shadow has no map of maps and no extension"
    with ExitStack() as stack:
        inner = stack.enter_context(some_map())
        outer = stack.enter_context(map_of_maps(inner))
        refused(controller, link, packet(using(outer)), errno.EOPNOTSUPP, words)
    # nothing is left, and a good one is taken
    assert controller.shadow(link.id, packet(asm.returning(1))).shadow


def test_a_program_with_an_extension(controller: Controller, link: Link) -> None:
    """Newer kernels tell of it; it may use any map."""
    types = Types()
    main = types.function("main", [("ctx", types.void_pointer)], GLOBAL)
    verdict = types.function("verdict", [("x", types.s32)], GLOBAL)
    head = asm.mov(asm.R1, 1) + asm.call_function(2) + asm.EXIT
    with (
        loaded_btf(types.blob()) as btf,
        loaded(
            head + asm.returning(1),
            loader.SOCKET_FILTER,
            btf=btf,
            functions=[(0, main), (asm.length(head), verdict)],
        ) as program,
        loaded(
            asm.returning(0),
            loader.EXT,
            btf=btf,
            functions=[(0, verdict)],
            attach_btf_id=verdict,
            attach_program=program,
        ) as extension,
    ):
        shadow = ProgramSet({Slot.PACKET: program})
        with attached(extension):
            if tells_extensions():
                refused(controller, link, shadow, errno.EOPNOTSUPP, "and no extension")
            else:
                pytest.skip("this kernel does not tell whether a program has an extension")
        controller.shadow(link.id, shadow)
        controller.drop_shadow(link.id)


def tells_extensions() -> bool:
    """Whether the kernel has bpf_prog_aux.is_extended."""
    with Btf.of_kernel() as types:
        members = types.members(types.structure("bpf_prog_aux"))
        return any(member.name == "is_extended" for member in members)


def test_a_program_that_calls_a_module(controller: Controller, link: Link) -> None:
    """Functions of the kernel itself are harmless, those of a module may be anything."""
    if not (Path(os.environ["IPTT_TEST_MODULES"]) / f"{KFUNCS}.ko").exists():
        pytest.skip("socket filters call no functions of modules on this kernel")
    load_test_module(KFUNCS)
    try:
        if not Path(f"/sys/kernel/btf/{KFUNCS}").exists():
            pytest.skip("this kernel does not describe its types")
        with (
            module_function(KFUNCS, "kfunc_offer_one") as (types, number),
            loaded(
                asm.call_module(number, 1) + asm.EXIT, loader.SOCKET_FILTER, descriptors=[0, types]
            ) as program,
        ):
            shadow = ProgramSet({Slot.PACKET: program})
            refused(controller, link, shadow, errno.EOPNOTSUPP, "calls no function of a module")
            # as the program of a link it is as good as any
            swapped = controller.swap(link.id, shadow)
            controller.detach(swapped.id)
    finally:
        remove_module(KFUNCS)


# --- maps -----------------------------------------------------------------------------------------


def test_a_map_that_a_link_uses(
    controller: Controller, link: Link, packet: Filter, make_program: MakeProgram
) -> None:
    """Its own map, that of another link of any kind, or of another link's shadow."""
    busy = errno.EBUSY
    with some_map() as first, some_map() as second, some_map() as third:
        controller.swap(link.id, packet(using(first)))
        table = controller.attach(
            TableHook(), ProgramSet({Slot.EXIT: make_program(using(second)).fd})
        )
        other = attach(
            controller,
            socket_filter(make_program, asm.returning(1)),
            HOOK,
            mode=NfMode.FILTER,
        )
        controller.shadow(other.id, packet(using(third)))
        for shared in (first, second, third):
            error = refused(controller, link, packet(using(shared)), busy, "the shadow may write")
            assert error.attribute == "programs"
        # what comes while there is a shadow does not share its maps either
        of_table = ProgramSet({Slot.EXIT: make_program(using(third)).fd})
        for hook, programs in (
            (NfHook.parse(HOOK), packet(using(third))),
            (TableHook(), of_table),
        ):
            with pytest.raises(KernelError, match=r"may write to .*of the programs") as late:
                controller.attach(hook, programs)
            assert (late.value.errno, late.value.attribute) == (busy, "programs")
        with pytest.raises(KernelError, match=r"may write to .*of the programs"):
            controller.swap(link.id, packet(using(third)))
        # once the shadow is gone it is a map like any other
        controller.drop_shadow(other.id)
        controller.swap(link.id, packet(using(third)))
        assert len(controller.links()) == 3
        controller.detach(table.id)


def test_maps_that_programs_cannot_write(
    controller: Controller, link: Link, packet: Filter
) -> None:
    """They may be shared; but a look-up in an LRU map changes what it evicts."""
    with (
        some_map(ARRAY, RDONLY_PROG) as constant,
        some_map(HASH, RDONLY_PROG) as hashed,
        some_map(LRU_HASH, RDONLY_PROG) as evicting,
    ):
        for fd in (constant, hashed):
            controller.swap(link.id, packet(using(fd)))
            assert controller.shadow(link.id, packet(using(fd))).shadow
            controller.drop_shadow(link.id)
        controller.swap(link.id, packet(using(evicting)))
        refused(controller, link, packet(using(evicting)), errno.EBUSY, "may write")


def test_a_link_that_may_reach_any_map(controller: Controller, link: Link, packet: Filter) -> None:
    """By maps of maps; a shadow that writes nothing can run beside it."""
    words = r"may reach maps.*\(map of maps, extension\)"
    with ExitStack() as stack:
        own = stack.enter_context(some_map())
        outer = stack.enter_context(map_of_maps(own))
        controller.swap(link.id, packet(using(outer)))
        refused(controller, link, packet(using(own)), errno.EBUSY, words)
        controller.shadow(link.id, packet(asm.returning(1)))
        controller.drop_shadow(link.id)
        controller.swap(link.id, packet(asm.returning(1)))
        controller.shadow(link.id, packet(using(own)))
        for live, why in (
            (using(outer), words),
            (using(own), "the shadow of (a )?link.* may write to (a )?map"),
        ):
            with pytest.raises(KernelError, match=why) as error:
                controller.attach(NfHook.parse(HOOK), packet(live))
            assert error.value.errno == errno.EBUSY


@pytest.mark.parametrize("verb", ["promote", "drop_shadow"])
def test_there_has_to_be_a_shadow(controller: Controller, link: Link, verb: str) -> None:
    with pytest.raises(KernelError, match="the link has no shadow") as error:
        getattr(controller, verb)(link.id)
    assert (error.value.errno, error.value.attribute) == (errno.ENODATA, "link")
