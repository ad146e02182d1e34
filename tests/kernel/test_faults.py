# SPDX-License-Identifier: GPL-2.0
"""Memory runs out at each allocation in turn: a request succeeds, or changes nothing."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import IpttctlError, KernelError
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.condition import Condition
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet, Swap
from ipttctl.link.restore import Restorer
from ipttproto import TABLE_SLOTS, Kind, NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support import faults
from tests.kernel.support.faults import each_allocation, module_out_of_memory
from tests.kernel.support.kernel import (
    MODULE,
    KernelLog,
    load_module,
    loaded_modules,
    probes,
    redirected_functions,
    run,
    splats,
    unload_module,
    wait_for,
    wait_for_no_redirection,
)
from tests.kernel.support.maps import PERCPU_ARRAY, one_element_map
from tests.kernel.support.network import Namespace, namespace
from tests.kernel.support.observing import observing

pytestmark = pytest.mark.skipif(
    not faults.available(), reason="this kernel cannot make allocations fail: make test-debug"
)

_NR_FINIT_MODULE = 313  # x86-64
#: allocations that fail without a change; the kernel can do without what they were for
MINIMUM = 5
LABELS = {"team": "core", "tier": ""}
PLACES: tuple[type[Hook], ...] = (TableHook, ChainHook, SpineHook)


@pytest.fixture
def programs(make_program: MakeProgram, request: pytest.FixtureRequest) -> ProgramSet:
    """A program in each slot of the test's hook, or of tables."""
    fixture = next((name for name in ("hook", "place_hook") if name in request.fixturenames), None)
    asked = request.getfixturevalue(fixture) if fixture else None
    slots = asked.SLOTS if asked else TABLE_SLOTS
    accept_all = b"\x06\x00\x00\x00\xff\xff\x00\x00"
    return ProgramSet(
        dict.fromkeys(slots, make_program().fd),
        # links at other hooks choose the packets of a journey
        filter=None if isinstance(asked, JourneyHook) else accept_all,
        cookie=7,
    )


def _made(kind: type[Hook]) -> Hook:
    run("modprobe", "nf_tables")
    return kind()


@pytest.fixture(params=PLACES, ids=lambda kind: kind.__name__.removesuffix("Hook").lower())
def place_hook(request: pytest.FixtureRequest) -> Hook:
    """All tables, all chains, and the spine; the code of chains is loaded."""
    return _made(request.param)


@pytest.fixture(
    params=[*PLACES, JourneyHook], ids=lambda kind: kind.__name__.removesuffix("Hook").lower()
)
def hook(request: pytest.FixtureRequest) -> Hook:
    """The same, and journeys."""
    return _made(request.param)


@pytest.fixture(autouse=True)
def as_before(session_log: KernelLog) -> Iterator[None]:
    """No function watched, no probe left, no complaint except of memory, after any failure."""
    before = probes()
    yield
    wait_for_no_redirection()
    assert probes() == before
    wrong = splats(faults.without_complaints(session_log.new_lines()))
    assert not wrong, "\n".join(wrong)


def _unanswered(error: Exception | None) -> bool:
    """Whether the kernel could not even send the result of the request."""
    return isinstance(error, KernelError) and error.errno == errno.ENOBUFS


def _made_or_not(
    controller: Controller, make: Callable[[], Link], undone: Callable[[], object]
) -> Iterator[Sequence[Link]]:
    """Make a link, each allocation failing once: it is there, or the request was refused.

    Yields the links that this made. ``undone`` is called when they are gone again.
    """
    others = {link.id for link in controller.links()}
    failed = 0
    for trial in each_allocation(make, IpttctlError):
        links = [link for link in controller.links() if link.id not in others]
        yield links
        if trial.error is None:
            assert links == [trial.result]
        elif not _unanswered(trial.error):
            assert links == [], trial
        failed += trial.error is not None
        for link in links:
            controller.detach(link.id)
        undone()
    print(f"{trial.number - 1} allocations, {failed} requests refused")
    assert failed > MINIMUM


def test_attach(controller: Controller, programs: ProgramSet, hook: Hook) -> None:
    def attach() -> Link:
        return controller.attach(hook, programs, name="web", labels=LABELS, reason="why")

    for _ in _made_or_not(controller, attach, wait_for_no_redirection):
        pass


def test_attach_beside_another(controller: Controller, programs: ProgramSet, hook: Hook) -> None:
    other = controller.attach(hook, programs)
    watched = redirected_functions()

    def unchanged() -> None:
        assert redirected_functions() == watched

    for _ in _made_or_not(controller, lambda: controller.attach(hook, programs), unchanged):
        pass
    controller.detach(other.id)


def test_swap(
    controller: Controller, programs: ProgramSet, hook: Hook, make_program: MakeProgram
) -> None:
    sets = [programs, ProgramSet({hook.SLOTS[-1]: make_program(name="other").fd})]
    link = controller.attach(hook, programs)
    failed = 0

    def swap() -> Link:
        # every other time it keeps the labels that it has
        labels = {"of": str(link.generation + 1)} if link.generation % 2 else None
        return controller.swap(link.id, sets[link.generation % 2], labels=labels)

    for trial in each_allocation(swap, IpttctlError):
        now = controller.link(link.id)
        if trial.error is None:
            assert now == trial.result
        if trial.error is not None and not _unanswered(trial.error):
            assert now == link, trial
        # all of one set or all of the other
        assert set(now.programs) == set(sets[(now.generation - 1) % 2].programs)
        assert now.generation in (link.generation, link.generation + 1)
        assert now.labels == ({"of": str(now.generation // 2 * 2)} if now.generation > 1 else {})
        failed += trial.error is not None
        link = now
    print(f"swap: {trial.number - 1} allocations, {failed} requests refused")
    assert failed > MINIMUM
    controller.detach(link.id)


def test_attach_to_a_netfilter_hook(controller: Controller, make_program: MakeProgram) -> None:
    """Inet means two hooks, of which the second can fail."""
    hook = NfHook.parse("nf:inet/output")
    failed = 0
    with one_element_map(PERCPU_ARRAY) as payload:
        code = asm.look_up(payload, 0) + asm.returning(1)
        packet = make_program(code, type=ProgramType.SOCKET_FILTER).fd
        programs = ProgramSet({Slot.PACKET: packet}, payload=payload)
        for trial in each_allocation(lambda: controller.attach(hook, programs), IpttctlError):
            links = controller.links()
            if trial.error is None:
                assert [link.id for link in links] == [trial.result.id if trial.result else 0]
            elif not _unanswered(trial.error):
                assert links == [], trial
            failed += trial.error is not None
            for link in links:
                controller.detach(link.id)
    print(f"attach to a hook: {trial.number - 1} allocations, {failed} requests refused")
    assert failed > MINIMUM


def test_transaction(
    controller: Controller, programs: ProgramSet, make_program: MakeProgram
) -> None:
    """Links of all kinds are all swapped, with a rollback, or none is."""
    run("modprobe", "nf_tables")
    packet = ProgramSet({Slot.PACKET: make_program(type=ProgramType.SOCKET_FILTER).fd})
    links = [
        controller.attach(TableHook(), programs),
        controller.attach(NfHook.parse("nf:inet4/output"), packet),
        controller.attach(ChainHook(), programs),
    ]
    swaps = [Swap(link.id, packet if isinstance(link.hook, NfHook) else programs) for link in links]
    failed = 0

    def transact() -> list[Link]:
        return controller.transact(swaps, rollback_after=3600)

    generation = 1
    for trial in each_allocation(transact, IpttctlError):
        now = controller.links()
        done = now[0].generation != generation
        assert [link.generation for link in now] == [generation + done] * 3, trial
        assert [link.rollback_in is not None for link in now] == [done] * 3
        assert done or trial.error is not None
        assert trial.error is None or not done or _unanswered(trial.error)
        if done:
            generation += 1
            controller.confirm(links[0].id)
        failed += trial.error is not None
    print(f"transaction: {trial.number - 1} allocations, {failed} requests refused")
    assert failed > MINIMUM
    for link in links:
        controller.detach(link.id)


@pytest.mark.parametrize("verb", ["shadow", "promote", "drop_shadow"])
def test_shadow(controller: Controller, make_program: MakeProgram, verb: str) -> None:
    """A shadow is there or not, and the link is of the set before or of what was the shadow."""
    packet = ProgramSet({Slot.PACKET: make_program(type=ProgramType.SOCKET_FILTER).fd})
    made = controller.attach(NfHook.parse("nf:inet4/output", mode=NfMode.FILTER), packet)
    failed = 0

    def give() -> Link:
        conditions = [Condition.parse("disagreements < 1/100 for 1h")]
        return controller.shadow(made.id, packet, labels=LABELS, promote_if=conditions)

    guards = [Condition.parse("lost < 1")]
    acts: dict[str, Callable[[], Link]] = {
        "shadow": give,
        # what waits takes memory too
        "promote": lambda: controller.promote(made.id, guards=guards, reason="why"),
        "drop_shadow": lambda: controller.drop_shadow(made.id),
    }
    before = made if verb == "shadow" else give()
    for trial in each_allocation(acts[verb], IpttctlError):
        now = controller.link(made.id)
        done = (now.shadow is None) != (before.shadow is None)
        if trial.error is None:
            assert done
            assert now.generation == before.generation + (verb == "promote")
        elif not _unanswered(trial.error):
            assert now == before, trial
        failed += trial.error is not None
        if done:
            # as it was
            if now.waits:
                controller.confirm(made.id)
            before = controller.drop_shadow(made.id) if verb == "shadow" else give()
    print(f"{verb}: {trial.number - 1} allocations, {failed} requests refused")
    assert failed > 0
    controller.detach(made.id)


def test_swaps_that_wait(
    controller: Controller, programs: ProgramSet, make_program: MakeProgram
) -> None:
    """With guards, which need memory for each link, and rolled back at once: all links or none."""
    packet = ProgramSet({Slot.PACKET: make_program(type=ProgramType.SOCKET_FILTER).fd})
    links = [
        controller.attach(TableHook(), programs),
        controller.attach(NfHook.parse("nf:inet4/output"), packet),
    ]
    swaps = [Swap(links[0].id, programs), Swap(links[1].id, packet)]
    guards = [Condition.parse("lost < 1"), Condition.parse("drops < 1/100 for 10s")]
    failed = {"swapping": 0, "undoing": 0}

    def swap() -> list[Link]:
        return controller.transact(swaps, guards=guards)

    def check(before: list[Link], error: Exception | None, waits: bool) -> None:
        now = controller.links()
        done = now[0].generation != before[0].generation
        assert [link.generation for link in now] == [before[0].generation + done] * 2
        assert [link.waits for link in now] == [waits == done] * 2
        assert [link.guards for link in now] == [tuple(guards) if now[0].waits else ()] * 2
        assert done or error is not None
        assert error is None or not done or _unanswered(error)

    before = controller.links()
    for trial in each_allocation(swap, IpttctlError):
        check(before, trial.error, waits=True)
        failed["swapping"] += trial.error is not None
        if controller.link(links[0].id).waits:
            controller.rollback(links[0].id)
        before = controller.links()
    controller.transact(swaps, guards=guards)
    before = controller.links()
    for trial in each_allocation(lambda: controller.rollback(links[1].id), IpttctlError):
        check(before, trial.error, waits=False)
        failed["undoing"] += trial.error is not None
        if not controller.link(links[0].id).waits:
            controller.transact(swaps, guards=guards)
        before = controller.links()
    print(f"swaps that wait: {failed} requests refused")
    assert failed["swapping"] > MINIMUM
    assert failed["undoing"] > 0
    for link in links:
        controller.detach(link.id)


def test_detach(controller: Controller, programs: ProgramSet, hook: Hook) -> None:
    link = controller.attach(hook, programs)
    failed = 0

    def detach() -> Link:
        return controller.detach(link.id)

    for trial in each_allocation(detach, IpttctlError):
        links = controller.links()
        if trial.error is None:
            assert links == []
        elif not _unanswered(trial.error):
            assert links == [link], trial
        failed += trial.error is not None
        if links:
            assert redirected_functions()
        else:
            wait_for_no_redirection()
        if not links:
            link = controller.attach(hook, programs)
    print(f"detach: {trial.number - 1} allocations, {failed} requests refused")
    assert failed > 0
    controller.detach(link.id)


@pytest.fixture
def journey(controller: Controller, make_program: MakeProgram) -> Iterator[Link]:
    """A journey without links; the module without it unloads, and packets pass by its remains."""
    made = controller.attach(JourneyHook(), ProgramSet({Slot.STEP: make_program().fd}))
    yield made
    controller.detach(made.id)
    _nothing_watched()


def _nothing_watched() -> None:
    """Unload the module and send packets: a probe of a tracepoint that is left would run them."""
    wait_for_no_redirection()
    unload_module()
    run("ping", "-q", "-c", "3", "-i", "0.01", "127.0.0.1")
    load_module()


def test_attach_a_journey(controller: Controller, make_program: MakeProgram) -> None:
    """The first one makes the table of packets, and watches functions and tracepoints."""
    programs = ProgramSet({Slot.STEP: make_program().fd})
    failed = 0
    for trial in each_allocation(lambda: controller.attach(JourneyHook(), programs), IpttctlError):
        for link in controller.links():
            assert trial.error is None or _unanswered(trial.error), trial
            assert redirected_functions()
            controller.detach(link.id)
        # that of a journey that was refused is used up as well
        wait_for_no_redirection()
        failed += trial.error is not None
    print(f"attach a journey: {trial.number - 1} allocations, {failed} requests refused")
    # a table, the functions of journey_steps.h, three tracepoints
    assert failed > 2 * MINIMUM
    _nothing_watched()


def test_join_a_journey(
    controller: Controller, programs: ProgramSet, place_hook: Hook, journey: Link
) -> None:
    """A link is on the journey, or is not there."""
    watched = redirected_functions()

    def join() -> Link:
        return controller.attach(place_hook, programs, journey=journey.id)

    def unwatched() -> None:
        wait_for(lambda: redirected_functions() == watched, what="only the journey's functions")

    for links in _made_or_not(controller, join, unwatched):
        assert [link.journey for link in links] == [journey.id] * len(links)


def test_end_a_journey_under_its_link(
    controller: Controller, programs: ProgramSet, place_hook: Hook, make_program: MakeProgram
) -> None:
    """The link leaves the journey with its end, or nothing has changed."""
    of_step = ProgramSet({Slot.STEP: make_program().fd})
    failed = 0
    made: list[Link] = []

    def begin() -> None:
        journey = controller.attach(JourneyHook(), of_step)
        made[:] = [journey, controller.attach(place_hook, programs, journey=journey.id)]

    begin()
    for trial in each_allocation(lambda: controller.detach(made[0].id), IpttctlError):
        journey, link = made
        links = {one.id: one for one in controller.links()}
        left = links.pop(link.id)
        assert left.journey == (journey.id if links else None)
        if trial.error is None:
            assert not links
        elif not _unanswered(trial.error):
            assert links == {journey.id: journey}, trial
        failed += trial.error is not None
        if not links:
            controller.detach(link.id)
            wait_for_no_redirection()
            begin()
    print(f"end a journey: {trial.number - 1} allocations, {failed} requests refused")
    assert failed > 0
    for one in reversed(made):
        controller.detach(one.id)
    _nothing_watched()


def test_an_owner_that_goes_with_its_journey(programs: ProgramSet, place_hook: Hook) -> None:
    """Closing the socket ends journey and link, whatever has to be allocated."""
    with Controller() as watching, ExitStack() as programs_of:
        step = programs_of.enter_context(Program.load(asm.returning(1), name="step")).fd

        def hold() -> Controller:
            owner = Controller()
            journey = owner.attach(JourneyHook(), ProgramSet({Slot.STEP: step}))
            owner.attach(place_hook, programs, journey=journey.id)
            return owner

        owner = hold()

        def close() -> None:
            owner.close()

        for _ in each_allocation(close, ()):
            wait_for(lambda: watching.links() == [], what="the links are gone")
            wait_for_no_redirection()
            owner = hold()
        owner.close()


def _back_and_forth(
    controller: Controller, link: Link, request: Callable[[Link], Link], what: str
) -> None:
    """Make a request that changes a link, again and again: it is done, or nothing has changed."""
    failed = 0

    def attempt() -> Link:
        return request(link)

    for trial in each_allocation(attempt, IpttctlError):
        (now,) = controller.links()
        if trial.error is None:
            assert now == trial.result != link
        elif not _unanswered(trial.error):
            assert now == link, trial
        failed += trial.error is not None
        link = now
    print(f"{what}: {trial.number - 1} allocations, {failed} requests refused")
    assert failed > 0
    controller.detach(link.id)


def test_rename(controller: Controller, programs: ProgramSet) -> None:
    link = controller.attach(TableHook(), programs, name="web")
    other = {"web": "edge", "edge": "web"}

    def rename(link: Link) -> Link:
        renamed = controller.rename(link.name, other[link.name])
        assert renamed.name == other[link.name]
        return renamed

    _back_and_forth(controller, link, rename, "rename")


def test_release_and_adopt(controller: Controller, programs: ProgramSet) -> None:
    link = controller.attach(TableHook(), programs, exclusive=True)

    def exchange(link: Link) -> Link:
        verb = controller.adopt if link.persistent else controller.release
        changed = verb(link.id)
        assert changed.persistent is not link.persistent
        return changed

    _back_and_forth(controller, link, exchange, "release, adopt")


def test_park_and_restore(programs: ProgramSet, place_hook: Hook) -> None:
    """Links are parked or not, and a link is restored whole or not at all."""
    with Controller() as controller, Restorer() as restorer:
        controller.attach(
            place_hook, programs, persistent=True, name="web", labels=LABELS, reason="why"
        )
        (record,) = restorer.snapshot().records

        def park() -> None:
            restorer.park(None, force=False, reason="why")

        failed = 0
        for tried in each_allocation(park, IpttctlError):
            parked = restorer.status().restoring
            links = restorer.links()
            assert [record.same(link) for link in links] == ([] if parked else [True]), tried
            failed += not parked
            if parked:
                assert list(restorer.parked()) == [record.link.id]
                restorer.restore(record)
                restorer.restored()
        print(f"park: {tried.number - 1} allocations, {failed} requests refused")
        park()
        failed = 0
        for trial in each_allocation(lambda: restorer.restore(record), IpttctlError):
            links = restorer.links()
            if trial.error is None or links:
                assert [record.same(link) for link in links] == [True]
                park()
            failed += trial.error is not None
            wait_for_no_redirection()
        print(f"restore: {trial.number - 1} allocations, {failed} requests refused")
        assert failed > MINIMUM
        restorer.restored()


@pytest.mark.parametrize("verb", ["link", "links", "status", "history"])
def test_questions(controller: Controller, programs: ProgramSet, hook: Hook, verb: str) -> None:
    link = controller.attach(hook, programs)
    ask: dict[str, Callable[[], Any]] = {
        "link": lambda: controller.link(link.id),
        "links": controller.links,
        "status": controller.status,
        "history": lambda: controller.history(link.id),
    }
    right = ask[verb]()
    failed = 0
    for trial in each_allocation(ask[verb], IpttctlError):
        failed += trial.error is not None
        if trial.error is None:
            assert trial.result == right
        assert controller.link(link.id) == link
    print(f"{verb}: {trial.number - 1} allocations, {failed} requests refused")
    assert failed > 0
    controller.detach(link.id)


def test_controllers_and_observers(programs: ProgramSet, hook: Hook) -> None:
    """Opening, subscribing, attaching and closing fail cleanly, in the order of a script."""
    failed = 0

    def script() -> int:
        with Controller() as controller, controller.events(), controller.link_changes() as changes:
            link = controller.attach(hook, programs)
            controller.detach(link.id)
            return len(changes.read(0))

    for trial in each_allocation(script, (IpttctlError, OSError)):
        failed += trial.error is not None
        with Controller() as controller:
            assert controller.links() == [], trial
    print(f"a script: {trial.number - 1} allocations, {failed} failed")
    assert failed > MINIMUM


def test_an_owner_that_goes(programs: ProgramSet, hook: Hook) -> None:
    """Closing the socket cannot fail, whatever it has to allocate."""

    def close() -> None:
        owner.close()

    with Controller() as watching:
        owner = Controller()
        owner.attach(hook, programs)
        for _ in each_allocation(close, ()):
            wait_for(lambda: watching.links() == [], what="the link is gone")
            wait_for_no_redirection()
            owner = Controller()
            owner.attach(hook, programs)
        owner.close()


def _insert(fd: int) -> None:
    """finit_module(2) of the module under test, and nothing else that could fail."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_NR_FINIT_MODULE, fd, b"", 0):
        raise OSError(ctypes.get_errno(), "finit_module")


def test_loading_the_module() -> None:
    unload_module()
    failed = 0
    fd = os.open(os.environ["IPTTRACE_KO"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        for trial in each_allocation(partial(_insert, fd), OSError):
            failed += trial.error is not None
            if trial.error is None:
                with Controller() as controller:
                    assert controller.links() == []
                wait_for(lambda: loaded_modules()[MODULE] == 0)
                unload_module()
            assert MODULE not in loaded_modules(), trial
        print(f"loading: {trial.number - 1} allocations, {failed} failed")
        assert failed > MINIMUM
    finally:
        os.close(fd)
        load_module()


RULES = """
table ip faults {
    chain out { type filter hook output priority 0; meta l4proto icmp counter accept; }
}
"""


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("faults") as made:
        yield made


def _matched(place: Namespace, hook: Hook) -> int:
    """The packets that the rule has counted."""
    if isinstance(hook, TableHook):
        return int(place.iptables("-nvxL", "OUTPUT").splitlines()[2].split()[0])
    listed = place.run("nft", "list", "table", "ip", "faults")
    return int(listed.partition("counter packets ")[2].split()[0])


def test_events_that_find_no_memory_are_counted(
    controller: Controller, programs: ProgramSet, place: Namespace, place_hook: Hook
) -> None:
    """The received and the lost events together are all events of the link."""
    if isinstance(place_hook, TableHook):
        place.iptables("-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT")
    else:
        run("ip", "netns", "exec", place.name, "nft", "-f", "-", text=RULES)
    with observing(controller) as observer:
        link = controller.attach(place_hook, programs)
        with module_out_of_memory():
            # longer than the delay before a batch is sent
            place.ping("127.0.0.1", "-f", "-c", "50")
        place.ping("127.0.0.1", "-f", "-c", "20")
        observer.drain()
        losses = observer.stream.losses
        stats = controller.link(link.id).stats
        controller.detach(link.id)
    matched = _matched(place, place_hook)
    assert losses.memory > 0
    assert len(observer.events) + losses.events == stats.events
    # the spine has the function of the rule's chain
    rules = sum(
        event["kind"] in (Kind.RULE, Kind.CHAIN_RULE)
        or bytes(event["chain"]).rstrip(b"\0") == b"nft_do_chain_ipv4"
        for event in observer.events
    )
    assert 0 < rules < matched == 140
