# SPDX-License-Identifier: GPL-2.0
"""The verbs: the request of each to the module, and its use of the answer."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ipttctl.bpf import syscalls
from ipttctl.errors import (
    ExpectationError,
    KernelError,
    LinkGoneError,
    ModuleError,
    ProgramError,
    UsageError,
)
from ipttctl.events.filter import EventFilter
from ipttctl.families import NfFamily
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.condition import Condition
from ipttctl.link.controller import Controller
from ipttctl.link.model import (
    HistoryEntry,
    Part,
    ProgramInfo,
    ProgramSet,
    SlotStats,
    Swap,
    TableRuleset,
)
from ipttctl.link.streams import EventStream
from ipttctl.system.netns import Identity
from ipttproto import (
    FINGERPRINT,
    MINOR,
    VERSION,
    Action,
    Command,
    EventBatch,
    Feature,
    Gone,
    Hook,
    LinkFlag,
    NfMode,
    Slot,
    SwapAck,
    Walk,
)
from ipttproto.family import Top
from ipttproto.messages import PAYLOAD_OFFSET
from tests.unit.ctl.support import (
    FakeModule,
    RefusalError,
    chain_link,
    event,
    events_message,
    link,
    nf_link,
    no_such_link,
    status,
)


@pytest.fixture
def controller(module: FakeModule) -> Iterator[Controller]:
    for command in (Command.ATTACH, Command.SWAP, Command.DETACH, Command.GET):
        module.handlers[command] = lambda *_: [link()]
    with Controller(module.connect) as controller:
        yield controller


def test_attach_sends_the_program_set(module: FakeModule, controller: Controller) -> None:
    programs = ProgramSet({Slot.ENTRY: 5, Slot.RULE: 6}, filter=bytes(16), cookie=9)
    controller.attach(TableHook(6), programs, persistent=True)
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
    controller.attach(TableHook(), ProgramSet({Slot.ENTRY: 5}))
    assert module.requested(Command.ATTACH) == [
        {"hook": Hook.TABLE, "programs": {"program": [{"slot": 1, "fd": 5}]}}
    ]


def test_attach_to_a_journey(module: FakeModule, controller: Controller) -> None:
    module.handlers[Command.ATTACH] = lambda *_: [link(hook=Hook.JOURNEY, **{"journey-lost": 2})]
    step = controller.attach(JourneyHook(), ProgramSet({Slot.STEP: 5}))
    assert (step.hook, step.journey) == (JourneyHook(lost=2), None)
    module.handlers[Command.ATTACH] = lambda *_: [link(link=4, journey=3)]
    followed = controller.attach(TableHook(), ProgramSet({Slot.EXIT: 6}), journey=step.id)
    assert followed.journey == step.id
    assert module.requested(Command.ATTACH) == [
        {"hook": Hook.JOURNEY, "programs": {"program": [{"slot": 6, "fd": 5}]}},
        {"hook": Hook.TABLE, "journey": 3, "programs": {"program": [{"slot": 3, "fd": 6}]}},
    ]


def test_link_is_what_the_module_said(controller: Controller) -> None:
    found = controller.link(3)
    assert (found.id, found.hook, found.generation) == (3, TableHook(armed=frozenset({4})), 2)
    assert found.programs == {
        Slot.ENTRY: ProgramInfo(12, "0001020304050607", "trace_entry"),
        Slot.EXIT: ProgramInfo(13, "0" * 16, ""),
    }
    assert (found.filter_length, found.cookie) == (4, 5)
    assert (found.owner_portid, found.owner_pid, found.owner_comm) == (77, 1234, "ipttctl")
    assert found.hook.waiting == {6}
    assert (found.stats.packets, found.stats.nested) == (9, 1)
    assert not found.persistent
    assert found.journey is None


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
            "swap-ack": SwapAck.PUBLISHED,
        }
    ]


def test_swap_keeps_parts_of_the_generation_that_it_replaces(
    module: FakeModule, controller: Controller
) -> None:
    limits = {"sample": 7, "budget-cpu": 10}
    programs = {**link()["programs"], "filter": bytes(8), "limits": limits}
    module.handlers[Command.GET] = lambda *_: [link(programs=programs)]
    module.handlers[Command.TRANSACT] = lambda *_: [link()]
    controller.swap(3, ProgramSet({Slot.EXIT: 7}), keep=[Part.FILTER, Part.COOKIE])
    controller.transact([Swap(3, ProgramSet({Slot.EXIT: 7}), keep=[Part.COOKIE, Part.LIMITS])])
    kept = {"program": [{"slot": 3, "fd": 7}], "filter": bytes(8), "cookie": 5}
    [swap] = module.requested(Command.SWAP)
    ack = {"swap-ack": SwapAck.PUBLISHED}
    assert swap == {"link": 3, "expect-generation": 2, "programs": kept, **ack}
    [change] = module.requested(Command.TRANSACT)[0]["change"]
    del kept["filter"]
    kept["limits"] = limits
    assert change == {"link": 3, "expect-generation": 2, "programs": kept}

    for expected, programs_given, error in (
        (1, ProgramSet({Slot.EXIT: 7}), ExpectationError),
        (2, ProgramSet({Slot.EXIT: 7}, cookie=1), UsageError),
    ):
        with pytest.raises(error):
            controller.swap(3, programs_given, expect_generation=expected, keep=[Part.COOKIE])
    assert len(module.requested(Command.SWAP)) == 1


def test_a_kept_payload_needs_a_map_of_the_new_programs(
    module: FakeModule, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {33: "bytes", 34: "bytes", 35: "bytes", 36: "others"}
    used: list[int] = []
    fds: dict[int, int] = {}

    def opened(number: int) -> int:
        fd = os.open(os.devnull, os.O_RDONLY)
        fds[fd] = number
        return fd

    monkeypatch.setattr(syscalls, "program_maps", lambda _: used)
    monkeypatch.setattr(syscalls, "map_by_id", opened)
    monkeypatch.setattr(syscalls, "map_info", lambda fd: SimpleNamespace(name=names[fds[fd]]))
    module.handlers[Command.GET] = lambda *_: [nf_link()]
    for maps, chosen in (([36, 34, 33], 33), ([36, 34], 34)):
        used[:] = maps
        controller.swap(4, ProgramSet({Slot.PACKET: 7}), keep=[Part.PAYLOAD])
        assert fds[module.requested(Command.SWAP)[-1]["programs"]["payload-fd"]] == chosen
    for maps, why in (([36], "no map"), ([34, 35], "several maps")):
        used[:] = maps
        with pytest.raises(ProgramError, match=f"the new programs have {why} of the name bytes"):
            controller.swap(4, ProgramSet({Slot.PACKET: 7}), keep=[Part.PAYLOAD])
    for fd in fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_attach_to_a_netfilter_hook(module: FakeModule, controller: Controller) -> None:
    hook = NfHook(NfFamily.NETDEV, 0, -7, netns="/proc/self/ns/net", device="lo")
    controller.attach(hook, ProgramSet({Slot.PACKET: 5}, payload=8), persistent=True)
    [asked] = module.requested(Command.ATTACH)
    assert asked.pop("netns-fd") > 2
    assert asked == {
        "hook": Hook.NF,
        "family": 5,
        "hooknum": 0,
        "priority": -7,
        "mode": NfMode.OBSERVE,
        "flags": LinkFlag.PERSISTENT,
        "ifindex": socket.if_nametoindex("lo"),
        "programs": {"program": [{"slot": 4, "fd": 5}], "payload-fd": 8},
    }


def test_attach_to_a_chain(module: FakeModule, controller: Controller) -> None:
    module.handlers[Command.ATTACH] = lambda *_: [chain_link()]
    hook = ChainHook(NfFamily.INET, "filter", "out", netns="/proc/self/ns/net")
    made = controller.attach(hook, ProgramSet({Slot.RULE: 5}), persistent=True)
    [asked] = module.requested(Command.ATTACH)
    assert asked.pop("netns-fd") > 2
    assert asked == {
        "hook": Hook.CHAIN,
        "family": 1,
        "flags": LinkFlag.PERSISTENT,
        "programs": {"program": [{"slot": 2, "fd": 5}]},
        "table": "filter",
        "chain": "out",
    }
    place = Identity(4026532201, 5)
    assert made.hook == ChainHook(NfFamily.INET, "filter", "out", place, armed=True)
    assert made.hook.waiting == frozenset()


def test_flags_of_a_netfilter_hook_are_joined(module: FakeModule, controller: Controller) -> None:
    hook = NfHook(NfFamily.ARP, 1, mode=NfMode.FILTER, report_drops=True)
    controller.attach(hook, ProgramSet({Slot.PACKET: 5}), persistent=True)
    [asked] = module.requested(Command.ATTACH)
    assert asked["flags"] == LinkFlag.PERSISTENT | LinkFlag.REPORT_DROPS
    assert "netns-fd" not in asked


def test_rules_are_counted_at_tables(module: FakeModule, controller: Controller) -> None:
    programs = ProgramSet({Slot.EXIT: 5})
    controller.attach(TableHook(count_rules=True), programs, persistent=True)
    [asked] = module.requested(Command.ATTACH)
    assert asked["flags"] == LinkFlag.PERSISTENT | LinkFlag.COUNT_RULES


def test_device_that_is_not_there(module: FakeModule, controller: Controller) -> None:
    hook = NfHook(NfFamily.NETDEV, 0, netns="/proc/self/ns/net", device="nonsense0")
    with pytest.raises(UsageError, match="no device 'nonsense0'"):
        controller.attach(hook, ProgramSet({Slot.PACKET: 5}))
    assert module.requested(Command.ATTACH) == []


def test_link_at_a_netfilter_hook(module: FakeModule, controller: Controller) -> None:
    attributes = link(
        hook=Hook.NF,
        family=5,
        hooknum=0,
        priority=-7,
        netns=4026532000,
        ifindex=2,
        ifname="eth0",
        mode=NfMode.FILTER,
        flags=LinkFlag.REPORT_DROPS,
        gone=Gone.DEVICE,
        armed=4,
        stats={"drops": 4, "lost": 2, "slot": [{"slot": 4, "runs": 9, "run-time": 800}]},
        programs={"program": [{"slot": 4, "id": 9}], "payload-map": 3, "payload-size": 16},
        **{"netns-cookie": 9},
    )
    module.handlers[Command.GET] = lambda *_: [attributes | {"rollback-in": 1500}]
    found = controller.link(3)
    assert found.hook == NfHook(
        NfFamily.NETDEV,
        0,
        -7,
        netns=Identity(4026532000, 9),
        device="eth0",
        mode=NfMode.FILTER,
        report_drops=True,
        ifindex=2,
        gone=Gone.DEVICE,
        registered=True,
    )
    assert found.hook.waiting == frozenset()
    assert (found.payload_map, found.payload_size, found.rollback_in) == (3, 16, 1.5)
    assert (found.stats.drops, found.stats.lost) == (4, 2)
    assert found.stats.slots == {Slot.PACKET: SlotStats(9, 800)}


def test_transaction_sends_each_change(module: FakeModule, controller: Controller) -> None:
    module.handlers[Command.TRANSACT] = lambda *_: [link(link=3), link(link=9)]
    swaps = [Swap(3, ProgramSet({Slot.EXIT: 7}), 2), Swap(9, ProgramSet({Slot.PACKET: 8}))]
    assert [found.id for found in controller.transact(swaps, rollback_after=0.25)] == [3, 9]
    assert module.requested(Command.TRANSACT) == [
        {
            "change": [
                {
                    "link": 3,
                    "expect-generation": 2,
                    "programs": {"program": [{"slot": 3, "fd": 7}]},
                },
                {"link": 9, "programs": {"program": [{"slot": 4, "fd": 8}]}},
            ],
            "rollback-after": 250,
        }
    ]
    module.handlers[Command.TRANSACT] = lambda *_: [link()]
    with pytest.raises(ModuleError, match="swapping links 3, 9: the module did it"):
        controller.transact(swaps)


def test_refused_change_is_named(module: FakeModule, controller: Controller) -> None:
    swaps = [Swap(3, ProgramSet({Slot.EXIT: 7})), Swap(9, ProgramSet({Slot.EXIT: 8}))]
    first = len(Top.build({"change": [swaps[0].attributes()]}))

    def refuse(*_: Any) -> Any:
        offset = PAYLOAD_OFFSET + first + 4
        raise RefusalError(errno.ENOENT, {"message": "there is no such link", "offset": offset})

    module.handlers[Command.TRANSACT] = refuse
    with pytest.raises(LinkGoneError, match=r"no such link .*\(attribute change\[1\]\.link\)"):
        controller.transact(swaps)


def test_swap_that_is_rolled_back(module: FakeModule, controller: Controller) -> None:
    controller.swap(3, ProgramSet({Slot.EXIT: 7}), rollback_after=30)
    [asked] = module.requested(Command.SWAP)
    assert asked["rollback-after"] == 30000
    module.handlers[Command.CONFIRM] = lambda *_: [link()]
    assert controller.confirm(3).id == 3
    assert controller.confirm(3, expect_generation=2).id == 3
    assert module.requested(Command.CONFIRM) == [{"link": 3}, {"link": 3, "expect-generation": 2}]


@pytest.mark.parametrize("seconds", [0, -1, 0.0004, 86_400.1, float("nan"), float("inf")])
def test_a_swap_that_would_be_rolled_back_at_no_time(
    seconds: float, module: FakeModule, controller: Controller
) -> None:
    swap = Swap(3, ProgramSet({Slot.EXIT: 7}))
    for change in (
        lambda: controller.swap(3, swap.programs, rollback_after=seconds),
        lambda: controller.transact([swap], rollback_after=seconds),
        lambda: controller.promote(3, rollback_after=seconds),
    ):
        with pytest.raises(UsageError, match="no roll-back after"):
            change()
    assert not {Command.SWAP, Command.TRANSACT, Command.PROMOTE} & {
        command for command, _ in module.requests
    }


def test_history_and_adoption(module: FakeModule, controller: Controller) -> None:
    entry = {
        "generation": 1,
        "action": Action.ATTACH,
        "time": 5,
        "pid": 7,
        "uid": 0,
        "comm": "ipttctl",
        "program": [{"slot": 4, "id": 9, "tag": bytes(8), "name": "x"}],
    }
    reply = {"link": 3, "generation": 2, "history": [entry, {"generation": 2, "action": 77}]}
    module.handlers[Command.HISTORY] = lambda *_: [reply]
    first, second = controller.history(3)
    assert first == HistoryEntry(
        1, Action.ATTACH, 5, 7, 0, "ipttctl", {Slot.PACKET: ProgramInfo(9, "0" * 16, "x")}
    )
    assert (second.generation, second.action, second.programs) == (2, 77, {})
    module.handlers[Command.ADOPT] = lambda *_: [link()]
    assert controller.adopt(3).owner_portid == 77


def test_observer_gets_what_it_wants(module: FakeModule, controller: Controller) -> None:
    with controller.events(EventFilter(links={3})) as events:
        module.multicast(events_message([event(link=9)]))
        module.multicast(events_message([event(link=9), event(link=3)], sequence=1))
        [batch] = wait_for_batches(events)
        assert batch.sequences() == [2]
        module.handlers[Command.STATS] = lambda *_: [status([5])]
        assert list(events.drain(0)) == []
        # of five events three were seen, whatever was wanted
        assert events.losses.events == 2


def wait_for_batches(events: EventStream) -> list[EventBatch]:
    """The next batches of the stream."""
    while not (found := events.read(10)):
        assert events.wait(timeout=10)
    return found


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


def test_the_walk_is_tried_and_its_verification_ended(
    module: FakeModule, controller: Controller
) -> None:
    module.walk = Walk.UNVERIFIED
    assert controller.status().walk is Walk.UNVERIFIED
    controller.try_walk(7)
    assert controller.status().walk is Walk.UNVERIFIED
    controller.end_verification(Walk.DIFFERS)
    assert controller.status().walk is Walk.DIFFERS
    controller.end_verification(Walk.VERIFIED, spine=Walk.UNVERIFIED, although_not_compared=True)
    status = controller.status()
    assert (status.walk, status.walk_compared) == (Walk.VERIFIED, True)
    assert module.requested(Command.VERIFY) == [
        {"netns-fd": 7},
        {"walk": Walk.DIFFERS, "spine-walk": Walk.DIFFERS},
        {"walk": Walk.VERIFIED, "spine-walk": Walk.UNVERIFIED, "walk-compared": 0},
    ]


def test_a_verification_that_the_module_does_not_take(
    module: FakeModule, controller: Controller
) -> None:
    def refuse(*_: Any) -> Any:
        raise RefusalError(errno.EBUSY, {"message": "there are links by this walk"})

    module.handlers[Command.VERIFY] = refuse
    with pytest.raises(KernelError, match="ending the verification of the walks: there are lin"):
        controller.end_verification(Walk.DIFFERS)
    with pytest.raises(KernelError, match="verifying the module's walks: there are links by"):
        controller.try_walk(7)


def test_the_generation_of_a_legacy_table(module: FakeModule, controller: Controller) -> None:
    answers = [{"ruleset": 7, "replacing": 0}, {"ruleset": 8, "replacing": 1}, {"ruleset": 9}]
    given = iter(answers)
    module.handlers[Command.RULESET] = lambda *_: [next(given)]
    assert controller.ruleset(5, 2, "filter") == TableRuleset(7, replacing=False)
    assert controller.ruleset(5, 2, "filter") == TableRuleset(8, replacing=True)
    # what the module does not say is not certain
    assert controller.ruleset(5, 10, "nat") == TableRuleset(9, replacing=True)
    first, *_, last = module.requested(Command.RULESET)
    assert first == {"netns-fd": 5, "family": 2, "table": "filter"}
    assert last == {"netns-fd": 5, "family": 10, "table": "nat"}

    def refuse(*_: Any) -> Any:
        raise RefusalError(errno.ENOENT, {"message": "no such legacy table"})

    module.handlers[Command.RULESET] = refuse
    with pytest.raises(KernelError, match="generation of table raw: no such legacy") as refused:
        controller.ruleset(5, 2, "raw")
    assert not isinstance(refused.value, LinkGoneError)


def test_status_of_a_module_that_says_less_or_more(module: FakeModule) -> None:
    replies: list[dict[str, Any]] = [{"protocol-major": VERSION}]
    module.handlers[Command.STATS] = lambda *_: replies
    with Controller(module.connect) as controller:
        found = controller.status()
        assert (found.version, found.cpus, found.walk, found.walk_compared) == ("", (), 0, False)
        # in several messages
        replies += [{"walk": Walk.VERIFIED}, {"walk-compared": 1}, {"module-version": "7"}]
        found = controller.status()
        assert (found.version, found.walk, found.walk_compared) == ("7", Walk.VERIFIED, True)


def test_module_of_another_major_version_is_refused(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [status(major=VERSION + 1)]
    sentence = rf"protocol {VERSION + 1}\.{MINOR}, .*understand each other.*module build"
    with pytest.raises(ModuleError, match=sentence):
        Controller(module.connect)
    with Controller(module.connect, check=False) as controller:
        assert controller.status().protocol == (VERSION + 1, MINOR)


def test_module_that_tells_no_version_is_refused(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [{"fingerprint": FINGERPRINT}]
    with pytest.raises(ModuleError, match="protocol of no version"):
        Controller(module.connect)


def test_another_build_of_the_same_protocol_will_do(module: FakeModule) -> None:
    """It may be older or newer: unknown attributes are skipped, and there may be more features."""
    newer = {"features": 0xFFFFFFFF, "protocol-minor": MINOR + 7}
    module.handlers[Command.RENAME] = lambda *_: [link(name="web")]
    module.handlers[Command.STATS] = lambda *_: [{**status(fingerprint=FINGERPRINT ^ 1), **newer}]
    with Controller(module.connect) as controller:
        found = controller.status()
        assert found.protocol == (VERSION, MINOR + 7)
        assert all(feature in found.features for feature in Feature)
        assert controller.rename(3, "web").name == "web"


def test_what_an_older_module_lacks_is_not_asked_of_it(module: FakeModule) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("it was sent")

    for command in (Command.RENAME, Command.RELEASE, Command.ADOPT, Command.TRANSACT):
        module.handlers[command] = refuse
    module.handlers[Command.STATS] = lambda *_: [status(features=Feature(0))]
    with Controller(module.connect) as controller:
        programs = ProgramSet({Slot.ENTRY: 0})
        for call in (
            lambda: controller.rename(3, "web"),
            lambda: controller.release(3),
            lambda: controller.adopt(3, exclusive=True),
            lambda: controller.link("web"),
            lambda: controller.transact([Swap(3, programs, labels={"a": "b"})]),
        ):
            with pytest.raises(ModuleError, match=r"older.* lacks: names, labels .*module build"):
                call()
        assert controller.link(3).id == 3


def test_the_feature_that_an_older_module_lacks_is_named(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [status(features=Feature.LINK_NAMES)]
    module.handlers[Command.RENAME] = lambda *_: [link(name="web")]
    guard = Condition.parse("drops < 10/s")
    programs = ProgramSet({Slot.ENTRY: 0})
    with Controller(module.connect) as controller:
        assert controller.rename(3, "web").name == "web"
        for call, feature in (
            (lambda: controller.rollback(3), Feature.GUARDS),
            (lambda: controller.confirm(transaction=5), Feature.GUARDS),
            (lambda: controller.swap(3, programs, guards=[guard]), Feature.GUARDS),
            (lambda: controller.shadow(3, programs), Feature.SHADOWS),
            (lambda: controller.promote(3), Feature.SHADOWS),
            (lambda: controller.drop_shadow(3), Feature.SHADOWS),
            (
                lambda: controller.attach(JourneyHook(), ProgramSet({Slot.STEP: 0})),
                Feature.JOURNEYS,
            ),
            (lambda: controller.attach(TableHook(), programs, journey=3), Feature.JOURNEYS),
        ):
            with pytest.raises(ModuleError, match=f"older than this, and lacks: {feature.doc}"):
                call()
    commands = {command for command, _ in module.requests}
    assert commands == {Command.STATS, Command.RENAME}


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
    # the module's ends of the two connections stay open with it
    assert len(set(os.listdir("/proc/self/fd")) - before) == 2  # noqa: PTH208 - numbers, not paths


def test_a_module_that_does_not_say_what_it_did(module: FakeModule, controller: Controller) -> None:
    module.handlers[Command.DETACH] = lambda *_: []
    with pytest.raises(ModuleError, match="did it and did not say what it is now"):
        controller.detach(3)
