# SPDX-License-Identifier: GPL-2.0
"""Nearly valid messages to the live family: refused with an errno, nothing left.

make fuzz N=1000000 SEED=7 KERNEL=6.12
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from ipttctl.bpf.syscalls import ProgramType
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.link.restore import Restorer
from ipttproto import Slot, Walk
from ipttproto.family import limit
from tests.fuzz import refusals
from tests.fuzz.campaign import Campaign, Target
from tests.fuzz.kcov import KCOV, Kcov
from tests.fuzz.world import KnownLink, World
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support import loader
from tests.kernel.support.kernel import (
    refused_dumps_are_explained,
    wait_for,
    wait_for_no_redirection,
)
from tests.kernel.support.loader import loaded
from tests.kernel.support.maps import PERCPU_ARRAY, PROG_ARRAY, SOCKMAP, one_element_map
from tests.kernel.support.network import namespace
from tests.kernel.support.slab import KernelMemory

MESSAGES = int(os.environ.get("IPTT_FUZZ", "5000"))
SEED = int(os.environ.get("IPTT_SEED", "1"))
#: with fewer messages it depends on chance whether every sentence appears
ENOUGH = 20_000
#: further rounds for sentences that have not appeared yet
MORE_ROUNDS = 240
#: the number of messages after which links made by them are removed
ROUND = 500
#: one in this many rounds begins without a link, one with as many as the hook takes, and one with a
#: link that somebody owns exclusively
ROUNDS = 10
EMPTY, FULL, EXCLUSIVE = 1, 2, 3
HOOKS = (TableHook(), ChainHook(), SpineHook())
REPORTS = 10
#: a leak of one object in this many messages is found
LEAK = 50
#: objects that SLUB counts as in use although they are not: a slab that a CPU holds has up to 512
SLACK_OBJECTS = 512
SLACK_KILOBYTES = 4096

RETURN_ALL = b"\x06\0\0\0\xff\xff\xff\xff"
LOAD_LENGTH = b"\x80\0\0\0\0\0\0\0"


@pytest.fixture
def world(make_program: MakeProgram) -> Iterator[World]:
    """Programs that can be attached, and descriptors of many other things."""
    with ExitStack() as stack:
        prog_array = stack.enter_context(one_element_map(PROG_ARRAY, 4))
        tail_call = (
            asm.load_map(asm.R2, prog_array) + asm.mov(asm.R3, 0) + asm.call(asm.TAIL_CALL)
            + asm.returning(0)
        )  # fmt: skip  # one step of the program a piece
        sockets = stack.enter_context(one_element_map(SOCKMAP, 4))
        # 7.3 lets a socket filter do no more than to name such a map
        naming = asm.load_map(asm.R1, sockets) + asm.returning(0)
        override = asm.mov(asm.R2, 0) + asm.call(asm.OVERRIDE_RETURN) + asm.returning(0)
        others = {
            "tail calls": stack.enter_context(loaded(tail_call)),
            "sleepable": stack.enter_context(loaded(asm.returning(0), flags=loader.F_SLEEPABLE)),
            "multi": stack.enter_context(
                loaded(asm.returning(0), attach_type=loader.TRACE_KPROBE_MULTI)
            ),
            "map of sockets": stack.enter_context(loaded(naming, loader.SOCKET_FILTER)),
            "socket filter": stack.enter_context(loaded(asm.returning(0), loader.SOCKET_FILTER)),
            "array": stack.enter_context(one_element_map()),
            "per-CPU array": stack.enter_context(one_element_map(PERCPU_ARRAY)),
            "long per-CPU array": stack.enter_context(one_element_map(PERCPU_ARRAY, 264)),
            "program array": prog_array,
            "socket": stack.enter_context(socket.socket()).fileno(),
            "directory": os.open("/", os.O_RDONLY),
            "path": os.open("/proc/self/exe", os.O_PATH),
            "eventfd": os.eventfd(0),
        }
        for name in ("directory", "path", "eventfd"):
            stack.callback(os.close, others[name])
        with suppress(OSError):
            others["override"] = stack.enter_context(loaded(override))
        closed = os.dup(others["array"])
        os.close(closed)
        others["closed"] = closed
        payload = stack.enter_context(one_element_map(PERCPU_ARRAY, 256))
        using = asm.look_up(payload, 0) + asm.returning(1)
        programs = (
            make_program().fd,
            make_program(asm.returning(0)).fd,
            make_program(using).fd,
        )
        # each with a map of its own: as a shadow it gets far
        counting = [asm.counting(stack.enter_context(one_element_map())) for _ in range(2)]
        verdicts = (asm.returning(1), asm.returning(0))
        # the last one uses the payload's map
        packet_programs = tuple(
            make_program(code, type=ProgramType.SOCKET_FILTER).fd
            for code in (*verdicts, *counting, using)
        )
        filters = (RETURN_ALL, LOAD_LENGTH + RETURN_ALL, LOAD_LENGTH * 4095 + RETURN_ALL)
        place = stack.enter_context(namespace("fuzz"))
        place.iptables("-t", "raw", "-A", "OUTPUT", "-p", "udp")
        # with it comes the code of chains
        chain = "{ type filter hook output priority 0; }"
        place.run("nft", f"add table ip filter; add chain ip filter t {chain}")
        namespaces = tuple(os.open(path, os.O_RDONLY) for path in (place.path, "/proc/self/ns/net"))
        for namespace_fd in namespaces:
            stack.callback(os.close, namespace_fd)
        payloads = {programs[-1]: payload, packet_programs[-1]: payload}
        yield World(programs, others, filters, packet_programs, payloads, namespaces)


@pytest.fixture
def short_grace_periods() -> Iterator[None]:
    """Shorten grace periods, for which changes wait most of their time in an idle guest."""
    switch = Path("/sys/kernel/rcu_expedited")
    switch.write_text("1")
    yield
    switch.write_text("0")


@pytest.fixture
def target() -> Iterator[Target]:
    opened = Target()
    yield opened
    opened.close()


@pytest.fixture
def campaign(target: Target, world: World) -> Iterator[Campaign]:
    """A campaign against the module; guided if the kernel and the module have KCOV."""
    with ExitStack() as stack:
        trace = stack.enter_context(Kcov()).trace if KCOV.exists() else None
        yield Campaign(target, world, SEED, trace)


def _round(campaign: Campaign, target: Target, world: World, number: int, count: int) -> None:
    """Send ``count`` messages.

    The number of the round determines the number of existing links, and whether they are at tables
    or at chains.
    """
    kind = number // len(HOOKS) % ROUNDS
    links = {EMPTY: 0, FULL: limit("MAX_LINKS")}.get(kind, 1)
    hook = HOOKS[number % len(HOOKS)]
    with Controller() as others:
        if hook.NEEDS_WALK:
            # messages of an earlier round may have said that the walk differs
            others.end_verification(Walk.VERIFIED, although_not_compared=True)
        for _ in range(links):
            programs = ProgramSet({Slot.ENTRY: world.programs[0]})
            link = others.attach(hook, programs, exclusive=kind == EXCLUSIVE)
        if links:
            slots = {int(slot): info.id for slot, info in link.programs.items()}
            world.links[link.id] = KnownLink(link.id, link.generation, slots, hook.KIND)
        campaign.run(count)
        target.reopen()
        with Restorer() as restorer:
            # a message may have parked all links
            if restorer.status().restoring:
                restorer.restored()
        for link in others.links():
            if link.persistent:
                others.detach(link.id)
    world.forget_links()


def _report(campaign: Campaign, begin: float) -> None:
    tally = campaign.tally
    answered = sum(tally.errnos.values())
    print(
        f"{time.monotonic() - begin:6.0f} s  {answered} answered, {len(tally.errnos)} errnos,"
        f" {len(tally.sentences)} sentences, {len(campaign.corpus)} requests kept,"
        f" {campaign.corpus.places} places reached",
        flush=True,
    )


def _possible_sentences(world: World) -> frozenset[str]:
    """The sentences that some message will cause on this kernel."""
    possible = refusals.sentences() - refusals.NOT_BY_A_MESSAGE.keys() - refusals.SELDOM.keys()
    if "override" not in world.others:
        possible -= {refusals.ONLY_WITH_OVERRIDE}
    if not refused_dumps_are_explained():
        possible -= {refusals.WHERE_A_DUMP_BEGINS}
    return possible


@pytest.mark.usefixtures("short_grace_periods")
def test_nearly_right_messages(
    controller: Controller,
    campaign: Campaign,
    target: Target,
    world: World,
    make_program: MakeProgram,
) -> None:
    print(f"\n{MESSAGES} messages, seed {SEED}, {'guided' if KCOV.exists() else 'blind'}")
    begin = time.monotonic()
    starts = range(0, MESSAGES, ROUND)
    before = None
    for number, start in enumerate(starts, 1):
        _round(campaign, target, world, number, min(ROUND, MESSAGES - start))
        if number % max(1, len(starts) // REPORTS) == 0:
            _report(campaign, begin)
            # allocations that are made only once are there after the first part
            before = before or KernelMemory.now()
    assert before

    tally = campaign.tally
    possible = _possible_sentences(world)
    if MESSAGES >= ENOUGH:
        for number in range(MORE_ROUNDS):
            missing = possible - tally.sentences.keys()
            if not missing:
                break
            print(f"round {number}: not heard yet: {sorted(missing)}")
            _round(campaign, target, world, number, ROUND)
        _report(campaign, begin)
    print(f"errnos {dict(tally.errnos.most_common())}")
    for sentence, count in tally.sentences.most_common():
        print(f"{count:7}  {sentence}")
    wait_for(lambda: controller.links() == [], what="no link is left")
    wait_for_no_redirection()
    # some messages said how the verification of the walk through chains ended
    controller.end_verification(Walk.VERIFIED, although_not_compared=True)
    good = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
    controller.detach(good.id)

    def grown() -> list[str]:
        return KernelMemory.now().growth(
            before, objects=MESSAGES // LEAK + SLACK_OBJECTS, kilobytes=SLACK_KILOBYTES
        )

    # programs are freed in the background
    with suppress(AssertionError):
        wait_for(lambda: not grown())
    assert grown() == []

    # messages got far: accepted, refused by the policy, and refused by the module for reasons
    assert tally.errnos[0] > MESSAGES / 50
    assert len(tally.errnos) >= 8
    missing = possible - tally.sentences.keys()
    print(f"{len(possible) - len(missing)} of {len(possible)} sentences of the module heard")
    if MESSAGES >= ENOUGH:
        assert missing == set()
    if KCOV.exists():
        assert campaign.corpus.places, "KCOV saw nothing: the module is built without it"
