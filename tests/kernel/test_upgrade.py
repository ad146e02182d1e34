# SPDX-License-Identifier: GPL-2.0
"""Upgrades of the module: links outlive it, whatever goes wrong and whoever is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.maps import Map
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import KernelError, ModuleError, NameTakenError
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.host import builds, module
from ipttctl.host.unfinished import JOURNAL
from ipttctl.link.condition import Condition
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.link.restore import LinkRecord, Restorer
from ipttctl.state import journal as record
from ipttctl.state.apply import apply_state, diff_state
from ipttctl.state.file import read_state
from ipttctl.upgrade import journal, run, steps
from ipttctl.upgrade.steps import UpgradeOutcome
from ipttproto import Action, DetachReason, NfMode, Slot, Walk
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl, running
from tests.kernel.support.kernel import (
    MODULE,
    load_module,
    loaded_modules,
    settled,
    unload_module,
    wait_for,
)
from tests.kernel.support.maps import PERCPU_ARRAY, one_element_map
from tests.kernel.support.module_builds import keep_walk, other_build
from tests.kernel.support.network import Namespace, event, flood_udp, namespace
from tests.kernel.test_payload import numbering

REASON = "for a reason"
LABELS = {"team": "core", "empty": ""}
#: said anew by each module, or of another moment
OTHER_LIFE = ("links-sequence", "armed")

#: packets that pass between two upgrades
FLOODED = 100

_fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def old(tmp_path: Path) -> Iterator[Path]:
    """A file of the module under test, which is kept; it is loaded, and again at the end."""
    given = os.environ["IPTTRACE_KO"]
    # nobody else can have written it there
    path = Path(shutil.copy(given, tmp_path))
    os.environ["IPTTRACE_KO"] = str(path)
    module.keep()
    yield path
    os.environ["IPTTRACE_KO"] = given
    journal.discard()
    if MODULE in loaded_modules():
        with Controller(check=False) as controller:
            for link in controller.links():
                controller.detach(link.id, force=True)
        with Restorer() as restorer:
            if restorer.status().restoring:
                restorer.restored()
        if builds.running() != builds.of_file(path):
            unload_module()
    if MODULE not in loaded_modules():
        load_module()


@pytest.fixture
def new(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another build, which is to be loaded now; its walk counts as verified."""
    path = other_build(old, tmp_path / "new")
    for one in (old, path):
        keep_walk(one, Walk.VERIFIED)
    monkeypatch.setenv("IPTTRACE_KO", str(path))
    return path


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("upgrade") as made:
        made.run(
            "nft", "add table inet t; add chain inet t c { type filter hook output priority 0; }"
        )
        made.iptables("-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT")
        yield made


@pytest.fixture
def links(place: Namespace) -> dict[str, Link]:
    """A persistent link of each kind, whose programs nobody else holds.

    One has had a shadow, another one swaps that were rolled back, one of them by a guard.
    """
    with Controller() as controller, ExitStack() as stack:
        fd = stack.enter_context(one_element_map(PERCPU_ARRAY, 16))

        def loaded(code: bytes, kind: ProgramType = ProgramType.KPROBE) -> int:
            return stack.enter_context(Program.load(code, name="upgraded", type=kind)).fd

        counting = loaded(numbering(fd, 8), ProgramType.SOCKET_FILTER)
        hook = NfHook.parse(
            "nf:inet4/output@-7", netns=place.path, mode=NfMode.FILTER, report_drops=True
        )
        icmp = ProgramSet({Slot.PACKET: counting}, compile_filter("icmp"), payload=fd)
        guard = controller.attach(
            hook, icmp, persistent=True, name="guard", labels=LABELS, reason=REASON
        )
        slots = (Slot.ENTRY, Slot.RULE, Slot.EXIT)
        programs = ProgramSet({slot: loaded(asm.returning(1)) for slot in slots}, cookie=7)
        tables = controller.attach(TableHook(4, count_rules=True), programs, persistent=True)
        controller.swap(tables.id, programs, labels=LABELS, reason=REASON)
        controller.swap(tables.id, programs, rollback_after=0.01)
        wait_for(lambda: controller.link(tables.id).generation == 4, what="a roll-back")
        controller.swap(tables.id, programs, guards=[Condition.parse("packets < 1")])
        accepting = loaded(asm.returning(1), ProgramType.SOCKET_FILTER)
        controller.shadow("guard", ProgramSet({Slot.PACKET: accepting}))
        place.ping("127.0.0.1")
        controller.drop_shadow("guard")
        wait_for(lambda: controller.link(tables.id).generation == 6, what="a violated guard")
        assert controller.link("guard").stats.agreed
        chains = controller.attach(ChainHook(netns=place.path), programs, name="chains")
        controller.release(chains.id)
        # an id that is not used again
        controller.detach(controller.attach(TableHook(), programs).id)
        return {"guard": guard, "tables": tables, "chains": chains}


def upgrade(*, force: bool = False) -> UpgradeOutcome | None:
    """Upgrade in this process; fail if anything takes long."""
    told: list[str] = []
    outcome = run.upgrade(told.append, force=force)
    assert not told
    return outcome


def snapshot() -> tuple[LinkRecord, ...]:
    """All links, counters that stand still."""
    with Restorer() as restorer:
        return settled(lambda: restorer.snapshot().records)


def counters() -> dict[int, int]:
    """The packets that each link has met."""
    with Controller() as controller:
        return {link.id: link.stats.packets for link in controller.links()}


def reached(enough: Mapping[int, int]) -> bool:
    """Whether each link has met a number of packets."""
    return all(packets >= enough[link] for link, packets in counters().items())


def lasting(records: tuple[LinkRecord, ...]) -> list[tuple[dict[str, Any], Any]]:
    """Everything that the module said about links, but for what belongs to its life."""
    return [
        ({k: v for k, v in one.attributes.items() if k not in OTHER_LIFE}, one.history)
        for one in records
    ]


def assert_loaded(path: Path) -> None:
    """Check which module is loaded, and that nothing is left of an upgrade."""
    assert builds.running() == builds.of_file(path)
    with Restorer() as restorer:
        assert not restorer.status().restoring
    assert not JOURNAL.parent.exists()
    assert not journal.PINS.exists()


# --- links go on ----------------------------------------------------------------------------------


def test_links_of_each_kind_go_on(
    place: Namespace, links: dict[str, Link], new: Path, make_program: MakeProgram
) -> None:
    """Every attribute is the same, maps are the same maps, counters and histories go on."""
    start = snapshot()
    place.ping("127.0.0.1")
    before = snapshot()
    with Controller() as controller:
        sequence = controller.status().links_sequence
    with Map.from_id(links["guard"].payload_map) as kept:
        content = list(kept.dump())
    with running("events", "--links", "-o", "json") as watch:
        watch.wait_for_text('"overrun"')
        done = ipttctl("module", "upgrade", "-o", "json", fresh=True)
        assert watch.process.wait(60) == 3
    assert done.returncode == 0, done.stderr
    assert_loaded(new)
    told = json.loads(done.stdout)
    assert (told["upgraded"], told["left_out"], told["new"]["version"]) == (True, [], "0.1.1")
    assert [one["link"] for one in told["links"]] == [link.id for link in links.values()]
    assert told["gap_ms"] == max(one["gap_ms"] for one in told["links"]) > 0
    gone = [json.loads(line) for line in watch.out().splitlines() if '"detached"' in line]
    assert {one["reason"] for one in gone} == {DetachReason.UPGRADE.name.lower()}

    assert lasting(snapshot()) == lasting(before)
    with Map.from_id(links["guard"].payload_map) as kept:
        assert list(kept.dump()) == content
    place.ping("127.0.0.1")
    after = snapshot()
    for now, then, first in zip(after, before, start, strict=True):
        counted = then.link.stats.packets - first.link.stats.packets
        assert now.link.stats.packets - then.link.stats.packets == counted > 0, now.link
        assert now.link.stats.events >= then.link.stats.events
    with Controller() as controller:
        actions = [entry.action for entry in controller.history(links["tables"].id)]
        undone = [Action.SWAP, Action.ROLLBACK, Action.SWAP, Action.ROLLBACK_GUARD]
        assert actions == [Action.ATTACH, Action.SWAP, *undone]
        packet = make_program(type=ProgramType.SOCKET_FILTER).fd
        swapped = controller.swap("guard", ProgramSet({Slot.PACKET: packet}))
        assert (swapped.generation, swapped.labels) == (2, LABELS)
        assert swapped.transaction > sequence
        assert [entry.generation for entry in controller.history("guard")] == [1, 2]
        assert controller.history("guard")[0].reason == REASON
        with pytest.raises(NameTakenError):
            controller.rename(links["tables"].id, "chains")
        made = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
        assert made.id == links["chains"].id + 2


def test_upgrades_under_a_flood(
    place: Namespace, links: dict[str, Link], old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets meet the links or not, and none is counted twice."""
    guarded = links["guard"].id
    with Controller() as controller:
        before = controller.link(guarded).stats.packets
    # behind the link
    place.iptables("-I", "OUTPUT")
    stop = event()
    sender = place.start(flood_udp, "127.0.0.1", 9, stop)
    try:
        for path in (new, old, new):
            monkeypatch.setenv("IPTTRACE_KO", str(path))
            enough = {link: packets + FLOODED for link, packets in counters().items()}
            outcome = upgrade()
            assert outcome is not None
            assert not outcome.back
            assert_loaded(path)
            wait_for(partial(reached, enough), what="packets at all links")
        assert sender.is_alive()
    finally:
        stop.set()
        sender.join()
    assert 0 < counters()[guarded] - before < place.counted("OUTPUT")


@pytest.mark.usefixtures("new")
def test_a_declared_state_goes_on(tmp_path: Path) -> None:
    """Links that apply made are known to it afterwards, files and constants included."""
    pinned = Path("/sys/fs/bpf/declared")
    with Program.load(asm.returning(1), name="pin", type=ProgramType.SOCKET_FILTER) as program:
        program.pin(pinned)
    try:
        file = tmp_path / "state.yaml"
        file.write_text(
            f"links: {{3rd: {{hook: 'nf:inet4/output', pinned: {{packet: {pinned}}}}}}}"
        )
        with Controller() as controller:
            (made,) = apply_state(controller, read_state(str(file)))
        assert upgrade() is not None
        with Controller() as controller:
            assert [link.id for link in controller.links()] == [made.link]
            # a link whose name only the record has
            assert diff_state(controller, read_state(str(file))) == []
        assert upgrade() is None
    finally:
        pinned.unlink()
        record.RECORD.unlink()


def test_whoever_keeps_a_state_goes_on(new: Path, tmp_path: Path) -> None:
    """Links that are parked are no drift: they are waited for, and kept afterwards."""
    pinned = Path("/sys/fs/bpf/declared")
    with Program.load(asm.returning(1), name="pin", type=ProgramType.SOCKET_FILTER) as program:
        program.pin(pinned)
    file = tmp_path / "state.yaml"
    text = f"{{hook: 'nf:inet4/output', pinned: {{packet: {pinned}}}}}"
    file.write_text(f"links: {{3rd: {text}, other: {text}}}")
    line = ("apply", "--watch", "--every", "200ms", "-o", "json", str(file))

    def lives() -> int:
        return watch.out().count('"module_life"')

    def links() -> dict[int, int]:
        with Controller() as controller:
            return {link.id: link.generation for link in controller.links()}

    try:
        with running(*line, fresh=True) as watch:
            wait_for(lambda: len(watch.records()) == 2, timeout=120, what="the links")
            with record.locked(record.RECORD):
                watch.wait_for_text(f"process {os.getpid()} applies a state, or replaces the")
            before = links()
            assert upgrade() is not None
            assert_loaded(new)
            wait_for(lambda: lives() == 2, timeout=120, what="the next life")
            assert links() == before
            with Controller() as controller:
                gone = controller.detach("other").id
            wait_for(lambda: len(watch.records()) > 2, timeout=120, what="a step")
            # what was parked was neither made again nor told to be missing
            assert [step["name"] for step in watch.records()] == ["3rd", "other", "other"]
            assert watch.err().count("there is no such link") == 1
            assert gone not in links()
            assert len(links()) == 2
            # whoever applies, and never ends, keeps nobody from stopping it
            with record.locked(record.RECORD):
                assert watch.stop(signal.SIGTERM) == 0
    finally:
        pinned.unlink()
        record.RECORD.unlink()


# --- the old module is back -----------------------------------------------------------------------


def test_a_module_that_does_not_load(
    links: dict[str, Link], old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lasting(snapshot())
    keep_walk(old, Walk.VERIFIED)
    monkeypatch.setenv("IPTTRACE_KO", str(other_build(old, tmp_path / "bad", loads=False)))
    done = ipttctl("module", "upgrade", fresh=True)
    assert done.returncode == 3
    assert done.stdout.startswith(f"loaded: version 0.1.0, {len(links)} links restored\ngap: ")
    assert "the module was not replaced: the kernel does not take" in done.stderr
    assert_loaded(old)
    assert lasting(snapshot()) == before


def test_a_module_that_does_not_take_a_link(
    place: Namespace, links: dict[str, Link], old: Path, new: Path
) -> None:
    """Counts of the new module until then are not lost."""
    before = lasting(snapshot())
    keep_walk(new, Walk.DIFFERS)
    outcome = upgrade()
    assert outcome is not None
    assert "does not do what the kernel does" in outcome.back
    assert_loaded(old)
    assert lasting(snapshot()) == before
    place.ping("127.0.0.1")
    with Controller() as controller:
        assert all(controller.link(link.id).stats.packets for link in links.values())


# --- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_kept_is_refused(
    old: Path,
    new: Path,
    make_program: MakeProgram,
) -> None:
    """Nothing has changed then, and force ends such links; a canary has to be decided."""
    programs = ProgramSet({Slot.PACKET: make_program(type=ProgramType.SOCKET_FILTER).fd})
    with Controller() as controller:
        with namespace("short") as short:
            controller.attach(
                NfHook.parse("nf:inet4/output", netns=short.path), programs, persistent=True
            )
        owned = controller.attach(NfHook.parse("nf:inet4/output"), programs, exclusive=True)
        kept = controller.attach(
            NfHook.parse("nf:inet4/output", mode=NfMode.FILTER),
            programs,
            persistent=True,
            name="kept",
        )
        for part in (f"link {owned.id} belongs to process {os.getpid()}", "is at no hook any more"):
            with pytest.raises(ModuleError, match=part):
                upgrade()
            assert_loaded(old)
        controller.swap("kept", programs, rollback_after=60)
        with pytest.raises(ModuleError, match="run `ipttctl confirm kept`"):
            upgrade(force=True)
        assert_loaded(old)
        controller.confirm("kept")
        controller.shadow("kept", programs)
        with pytest.raises(ModuleError, match="run `ipttctl promote kept`"):
            upgrade(force=True)
        with Restorer() as restorer, pytest.raises(KernelError, match="has a shadow"):
            restorer.park(None, force=True, reason="")
        controller.drop_shadow("kept")
        assert_loaded(old)
        assert len(controller.links()) == 3
    # the owned link went with its owner
    with Controller() as controller:
        controller.attach(NfHook.parse("nf:inet4/output"), programs)
        outcome = upgrade(force=True)
    assert outcome is not None
    assert len(outcome.left_out) == 2
    assert_loaded(new)
    with Controller() as controller:
        assert [link.id for link in controller.links()] == [kept.id]


def test_a_way_back_is_needed(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for copy in builds.KEPT.iterdir():
        copy.unlink()
    with pytest.raises(ModuleError, match="there is nothing to go back to"):
        upgrade()
    with pytest.raises(ModuleError, match="is nowhere"):
        module.keep()
    monkeypatch.setenv("IPTTRACE_KO", str(old))
    module.keep()
    assert upgrade() is None
    monkeypatch.setenv("IPTTRACE_KO", str(new))
    assert upgrade() is not None
    assert_loaded(new)


# --- killed ---------------------------------------------------------------------------------------

#: each changes something outside the process; in the order in which they come first
STEPS: tuple[tuple[Any, str], ...] = (
    (run, "pin"),
    (journal.Journal, "write"),
    (Restorer, "park"),
    (module, "remove"),
    (module, "insert"),
    (Restorer, "restore"),
    (Restorer, "restored"),
    (steps, "carry_over"),
    (builds, "keep"),
    (steps, "discard"),
)


def killed(number: int) -> str:
    """Upgrade in a child process that is killed before its step of that number; returns the step.

    Empty if there is no such step: the upgrade has ended.
    """
    ours, theirs = _fork.Pipe()

    def child() -> None:
        left = number

        def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                if not left:
                    theirs.send(name)
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return call(*arguments, **named)

            return step

        for owner, name in STEPS:
            setattr(owner, name, counted(name, getattr(owner, name)))
        run.upgrade(lambda _: None)
        theirs.send("")

    process = _fork.Process(target=child)
    process.start()
    told = str(ours.recv()) if ours.poll(300) else "stuck"
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if told else 0), told
    return told


@pytest.mark.parametrize("loads", [True, False])
def test_each_kill_leaves_something_to_go_on_from(
    old: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_program: MakeProgram,
    loads: bool,
) -> None:
    """The same command completes it, or has the old module back; no link is lost in any case."""
    files = [old, other_build(old, tmp_path / "new", loads=loads)]
    packet = make_program(type=ProgramType.SOCKET_FILTER).fd
    with Controller() as controller:
        for name in ("one", "two"):
            hook = NfHook.parse("nf:inet4/output")
            controller.attach(hook, ProgramSet({Slot.PACKET: packet}), persistent=True, name=name)
        controller.swap("two", ProgramSet({Slot.PACKET: packet}))
    before = lasting(snapshot())
    met: list[str] = []
    while True:
        monkeypatch.setenv("IPTTRACE_KO", str(files[1]))
        told = killed(len(met))
        if not told:
            break
        met.append(told)
        outcome = upgrade()
        # killed before anything counted, it is made from the start; killed at its end, there is
        # nothing left to do
        assert outcome is None or bool(outcome.back) != loads, met
        assert_loaded(files[1] if loads else old)
        assert lasting(snapshot()) == before, met
        if loads:
            files.reverse()
    assert {name for _, name in STEPS} == set(met)
    assert_loaded(files[1] if loads else old)
    assert lasting(snapshot()) == before
