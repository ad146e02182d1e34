# SPDX-License-Identifier: GPL-2.0
"""Table code in modules: it comes and goes while links exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, ProgramSet
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.kernel import load_test_module, loaded_modules, remove_module, run
from tests.kernel.support.network import namespace
from tests.kernel.test_links import read_all

TABLES = ("filter", "mangle", "nat", "raw", "security")


@pytest.fixture
def no_table_code() -> Iterator[None]:
    """Keep the modules of the legacy tables unloaded, before and after."""
    _remove_table_code()
    yield
    _remove_table_code()


def _remove_table_code() -> None:
    for family, code in (("iptable", "ip_tables"), ("ip6table", "ip6_tables")):
        loaded = loaded_modules()
        for module in [f"{family}_{table}" for table in TABLES] + [code]:
            if module in loaded:
                remove_module(module)


def armed(link: Link) -> frozenset[int]:
    """The IP versions whose tables are watched for a link."""
    assert isinstance(link.hook, TableHook)
    return link.hook.armed


@pytest.mark.usefixtures("no_table_code")
def test_tables_that_come_later_and_go(controller: Controller, make_program: MakeProgram) -> None:
    program = make_program()
    with controller.link_changes() as changes:
        link = controller.attach(
            TableHook(), ProgramSet({Slot.ENTRY: program.fd, Slot.EXIT: program.fd})
        )
        assert armed(link) == frozenset()
        assert link.hook.waiting == {4, 6}

        with namespace("later") as later:
            later.iptables("-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT")
            assert armed(controller.link(link.id)) == {4}
            later.ping("127.0.0.1")
            assert controller.link(link.id).stats.selected == 4
        run("modprobe", "ip6_tables")
        assert armed(controller.link(link.id)) == {4, 6}

        remove_module("iptable_filter")
        remove_module("ip_tables")
        assert armed(controller.link(link.id)) == {6}
        run("ping", "-n", "-q", "-c", "1", "127.0.0.1")

        with namespace("again") as again:
            again.iptables("-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT")
            again.ping("127.0.0.1")
        assert controller.link(link.id).stats.selected == 8
        controller.detach(link.id)

        told = read_all(changes, 6)
    assert [(change.change, armed(change.link)) for change in told] == [
        (Change.ATTACHED, frozenset()),
        (Change.CHANGED, {4}),
        (Change.CHANGED, {4, 6}),
        (Change.CHANGED, {6}),
        (Change.CHANGED, {4, 6}),
        # the last link: nothing is watched any more
        (Change.DETACHED, frozenset()),
    ]


@pytest.mark.usefixtures("no_table_code")
def test_links_of_one_family_wait_for_their_tables_only(
    controller: Controller, make_program: MakeProgram
) -> None:
    link = controller.attach(TableHook(6), ProgramSet({Slot.ENTRY: make_program().fd}))
    assert link.hook.waiting == {6}
    run("modprobe", "ip6_tables")
    assert controller.link(link.id).hook.waiting == frozenset()
    remove_module("ip6_tables")
    assert controller.link(link.id).hook.waiting == {6}
    controller.detach(link.id)


@pytest.mark.usefixtures("no_table_code")
def test_another_modules_function_of_the_same_name_is_not_taken(
    controller: Controller, make_program: MakeProgram
) -> None:
    run("modprobe", "x_tables")
    load_test_module("xt_errdrop")
    try:
        addresses = Path("/proc/kallsyms").read_text().splitlines()
        assert [line.split()[2:] for line in addresses if " ip6t_do_table" in line] == [
            ["ip6t_do_table", "[xt_errdrop]"]
        ]
        link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
        assert link.hook.waiting == {4, 6}
        # nor does it block the right one
        run("modprobe", "ip6_tables")
        assert armed(controller.link(link.id)) == {6}
        controller.detach(link.id)
    finally:
        run("rmmod", "xt_errdrop")
