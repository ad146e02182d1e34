# SPDX-License-Identifier: GPL-2.0
"""Structures of nf_tables that lie elsewhere than the module expects: no walk runs there.

nf_tables is loaded from copies of its file that describe its types another way, or not at all. Its
code is the same: what would run if nobody refused would do no harm.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipttctl.errors import KernelError
from ipttctl.hooks.chain import ChainHook
from ipttctl.host import doctor
from ipttctl.host.doctor import Health
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Layout, Slot, Walk
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import kernel_log, loaded_modules, run, wait_for
from tests.kernel.support.network import Namespace, namespace
from tests.kernel.support.other_modules import (
    Change,
    Types,
    has_types,
    with_changed_types,
    without_types,
)
from tests.kernel.test_chains import remove_nf_tables

OFFSET, KIND = 8, 4
"""Places in a member: its offset in bits with the width of a bit field; its type."""
SIZE = 8
"""The place of its size in a struct."""


def swap(structure: str, one: str, other: str) -> Change:
    """Have two members change places: each gets the other's name."""

    def change(types: Types) -> None:
        places = types.member(structure, one), types.member(structure, other)
        names = [types.number(place) for place in places]
        for place, name in zip(places, reversed(names), strict=True):
            types.change(place, name)

    return change


def narrow(structure: str, member: str) -> Change:
    """Take a bit of a bit field."""

    def change(types: Types) -> None:
        place = types.member(structure, member) + OFFSET
        types.change(place, types.number(place) - (1 << 24))

    return change


def grow(structure: str) -> Change:
    """Add eight bytes to the end of a struct."""

    def change(types: Types) -> None:
        place = types.struct(structure) + SIZE
        types.change(place, types.number(place) + 8)

    return change


def retype(structure: str, member: str, like: str) -> Change:
    """Give a member the type of another one."""

    def change(types: Types) -> None:
        place = types.member(structure, member) + KIND
        types.change(place, types.number(types.member(structure, like) + KIND))

    return change


def rename(structure: str, member: str, to: str) -> Change:
    """Take a member's name away: there is none of that name any more."""

    def change(types: Types) -> None:
        place = types.member(structure, member)
        types.change(place, types.number(types.member(structure, to)))

    return change


#: what is changed, and what the sentence names
CHANGES = {
    "nft_cmp_fast_expr.data": swap("nft_cmp_fast_expr", "data", "mask"),
    "nft_rule_dp.handle": narrow("nft_rule_dp", "handle"),
    "nft_regs": grow("nft_regs"),
    "nft_base_chain.policy": retype("nft_base_chain", "policy", like="stats"),
    "nft_pktinfo.fragoff": rename("nft_pktinfo", "fragoff", to="thoff"),
}


@pytest.fixture(autouse=True)
def nf_tables_as_it_is() -> Iterator[None]:
    """Leave nf_tables as the kernel has it."""
    if not has_types("nf_tables"):
        pytest.skip("this kernel is built without types of modules (CONFIG_DEBUG_INFO_BTF_MODULES)")
    _unload()
    yield
    _unload()


def _unload() -> None:
    if "nf_tables" in loaded_modules():
        wait_for(remove_nf_tables, timeout=60, what="nf_tables is unloaded")


@contextmanager
def nf_tables_from(file: bytes, directory: Path) -> Iterator[None]:
    """Have nf_tables loaded from a file."""
    for line in run("modprobe", "--show-depends", "nf_tables").splitlines()[:-1]:
        run("modprobe", Path(line.split()[1]).name.partition(".")[0])
    path = directory / "nf_tables.ko"
    path.write_bytes(file)
    run("insmod", str(path))
    path.unlink()
    try:
        yield
    finally:
        _unload()


@contextmanager
def attached_in(
    controller: Controller, place: Namespace, make_program: MakeProgram
) -> Iterator[Callable[[], ChainHook]]:
    """A link in a namespace in which the walk is tried; yields how it is at the moment."""
    descriptor = os.open(place.path, os.O_RDONLY)
    try:
        controller.try_walk(descriptor)
        fd = make_program().fd
        link = controller.attach(ChainHook(netns=descriptor), ProgramSet({Slot.EXIT: fd}))
    finally:
        os.close(descriptor)

    def now() -> ChainHook:
        hook = controller.link(link.id).hook
        assert isinstance(hook, ChainHook)
        return hook

    try:
        yield now
    finally:
        controller.detach(link.id)


def refusals(controller: Controller, make_program: MakeProgram) -> set[str]:
    """The refusals of a link: one at all namespaces, and one at a verifier's."""
    said = set()
    programs = ProgramSet({Slot.EXIT: make_program().fd})
    with namespace("trial") as trial:
        descriptor = os.open(trial.path, os.O_RDONLY)
        try:
            controller.try_walk(descriptor)
            for hook in (ChainHook(), ChainHook(netns=descriptor)):
                with pytest.raises(KernelError) as refused:
                    controller.attach(hook, programs)
                assert refused.value.errno == errno.EOPNOTSUPP
                said.add(refused.value.problem)
        finally:
            os.close(descriptor)
    return said


def walk_finding() -> doctor.Finding:
    return next(found for found in doctor.examine() if found.check == "walk")


@pytest.mark.parametrize("named", CHANGES)
def test_another_layout_is_refused(
    named: str, controller: Controller, make_program: MakeProgram, tmp_path: Path
) -> None:
    changed = with_changed_types("nf_tables", CHANGES[named])
    with kernel_log() as log, nf_tables_from(changed, tmp_path):
        status = controller.status()
        assert status.walk_layout is Layout.DIFFERS
        assert f"kernel's {named} is not as this module was built for" in status.walk_refusal
        [said] = refusals(controller, make_program)
        assert status.walk_refusal in said
        assert any(status.walk_refusal in line for line in log.new_lines())
        with pytest.raises(KernelError, match="was built for"):
            controller.end_verification(Walk.VERIFIED, although_not_compared=True)
        found = walk_finding()
        assert (found.state, status.walk_refusal in found.text) == (Health.WARNING, True)
        assert f"chains: {status.walk_refusal}" in ipttctl("module").stdout
    assert controller.status().walk_layout is Layout.UNCHECKED
    with namespace("place") as place, attached_in(controller, place, make_program) as now:
        place.run("nft", "add", "table", "ip", "t")
        assert now().armed
        assert controller.status().walk_layout is Layout.SAME


def test_links_that_wait_do_not_get_another_layout(
    controller: Controller, make_program: MakeProgram, tmp_path: Path
) -> None:
    changed = with_changed_types("nf_tables", CHANGES["nft_regs"])
    with namespace("place") as place, attached_in(controller, place, make_program) as now:
        assert not now().armed
        with nf_tables_from(changed, tmp_path):
            assert not now().armed
        run("modprobe", "nf_tables")
        assert now().armed


def test_layouts_that_nobody_tells(
    controller: Controller, make_program: MakeProgram, tmp_path: Path
) -> None:
    """A result that came before does not count; whoever knows it may decide."""
    controller.end_verification(Walk.VERIFIED)
    try:
        with namespace("place") as place, nf_tables_from(without_types("nf_tables"), tmp_path):
            status = controller.status()
            assert (status.walk, status.walk_layout) == (Walk.UNVERIFIED, Layout.UNKNOWN)
            assert "does not tell the layouts" in status.walk_refusal
            everywhere, programs = ChainHook(), ProgramSet({Slot.EXIT: make_program().fd})
            with pytest.raises(KernelError, match="does not tell the layouts"):
                controller.attach(everywhere, programs)
            with attached_in(controller, place, make_program) as now:
                assert now().armed
            with pytest.raises(KernelError, match="does not tell the layouts"):
                controller.end_verification(Walk.VERIFIED)
            assert walk_finding().state is Health.WARNING
            controller.end_verification(Walk.VERIFIED, although_not_compared=True)
            link = controller.attach(everywhere, programs)
            controller.detach(link.id)
    finally:
        controller.end_verification(Walk.VERIFIED, although_not_compared=True)
