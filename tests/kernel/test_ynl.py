# SPDX-License-Identifier: GPL-2.0
"""The kernel's own netlink client (tools/net/ynl) drives the family with the generated spec.

Each call is a process of its own, which inherits the descriptors in its request. Its effects are
checked with the project's library, and the other way round.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ipttctl.errors import KernelError
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, LinkChange, ProgramSet
from ipttctl.link.wire import Connection
from ipttproto import FINGERPRINT, Command, DetachReason, Feature, Hook, Slot
from ipttproto.family import Event
from ipttproto.layout import fields
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import COMMAND_TIMEOUT, wait_for
from tests.kernel.support.maps import PERCPU_ARRAY, one_element_map
from tests.kernel.support.network import namespace, send_udp
from tests.kernel.support.nf import UDP, all_but, attach, socket_filter
from tests.kernel.support.sockets import waiting
from tests.ynl import SPEC, ynl

#: number of the system call on x86-64
CLOCK_NANOSLEEP = 230

#: the checks of the spec against the schema take seconds in a guest: one call does them
UNCHECKED = ("--no-schema",)


def command(*arguments: str, schema: bool = False) -> list[str]:
    tool = ynl()
    checked = ("--schema", str(tool.schema)) if schema else UNCHECKED
    line = [tool.cli, *checked, "--spec", SPEC, "--output-json", *arguments]
    return ["/usr/bin/python3", *map(str, line)]


def call(
    *arguments: str, fds: Sequence[int] = (), schema: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the client to its end."""
    return subprocess.run(
        command(*arguments, schema=schema),
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=2 * COMMAND_TIMEOUT,
        check=False,
    )


def answers(*arguments: str, fds: Sequence[int] = (), schema: bool = False) -> list[Any]:
    """The output of the client: the reply, and the group's messages if it subscribed to one."""
    done = call(*arguments, fds=fds, schema=schema)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def do(
    name: str, attributes: Mapping[str, Any], fds: Sequence[int] = (), *, schema: bool = False
) -> Any:
    """The reply to one request."""
    [reply] = answers("--do", name, "--json", json.dumps(attributes), fds=fds, schema=schema)
    return reply


def programs(**fds: int) -> dict[str, Any]:
    """A program set in the client's form."""
    return {"program": [{"slot": slot, "fd": fd} for slot, fd in fds.items()]}


@pytest.fixture(autouse=True)
def _no_links_left(controller: Controller) -> Iterator[None]:
    """Detach links that the client made persistent, also if a test fails."""
    yield
    for link in controller.links():
        controller.detach(link.id)


def check_link(reply: Mapping[str, Any], link: Link) -> None:
    """Check that the client's description of a link is the same as the library's."""
    assert (reply["link"], reply["generation"]) == (link.id, link.generation)
    assert Hook[reply["hook"].upper()] == link.hook.KIND
    assert (reply["owner-portid"], reply["owner-pid"]) == (link.owner_portid, link.owner_pid)
    assert ("persistent" in reply["flags"]) is link.persistent
    shown = {
        Slot[one["slot"].upper()]: (one["id"], bytes.fromhex(one["tag"]).hex(), one["name"])
        for one in reply["programs"]["program"]
    }
    assert shown == {slot: (one.id, one.tag, one.name) for slot, one in link.programs.items()}


def test_names_labels_and_reasons(controller: Controller, make_program: MakeProgram) -> None:
    fd = make_program(asm.returning(1)).fd
    labels = {"label": [{"key": "team", "value": "core"}, {"key": "tier", "value": ""}]}
    request = {
        "hook": "table",
        "flags": ["persistent"],
        "programs": programs(entry=fd),
        "name": "web",
        "labels": labels,
        "reason-text": "why",
    }
    reply = do("attach", request, [fd])
    link = controller.link("web")
    assert (reply["link"], reply["name"], reply["labels"]) == (link.id, "web", labels)
    assert (link.labels, link.reason) == ({"team": "core", "tier": ""}, "why")
    assert link.transaction == reply["transaction"]
    refused = call("--do", "attach", "--json", json.dumps(request), fds=[fd])
    assert refused.returncode != 0
    assert "has this name" in refused.stdout + refused.stderr
    assert do("rename", {"name": "web", "new-name": "edge"})["name"] == "edge"
    [entry] = do("history", {"name": "edge"})["history"]
    assert (entry["reason"], entry["transaction"]) == ("why", link.transaction)


def test_a_link_at_tables_from_attach_to_detach(
    controller: Controller, make_program: MakeProgram
) -> None:
    entry = make_program(asm.returning(1), name="ynl_entry")
    leaving = make_program(asm.returning(1), name="ynl_exit")
    fds = (entry.fd, leaving.fd)
    request = {
        "hook": "table",
        "flags": ["persistent"],
        "programs": {**programs(entry=entry.fd, exit=leaving.fd), "cookie": 1 << 40 | 7},
    }
    reply = do("attach", request, fds, schema=True)
    link = controller.link(reply["link"])
    check_link(reply, link)
    assert link.cookie == 1 << 40 | 7
    assert link.owner_comm == "python3"

    one = {"link": link.id}
    check_link(do("get", one), link)
    second = controller.attach(TableHook(), ProgramSet({Slot.RULE: leaving.fd}))
    [dumped] = answers("--dump", "get")
    assert [other["link"] for other in dumped] == [link.id, second.id]
    check_link(dumped[1], second)

    swap = {
        **one,
        "programs": programs(rule=leaving.fd),
        "expect-generation": 1,
        "expect-program": [{"slot": "entry", "id": entry.id}, {"slot": "rule", "id": 0}],
    }
    check_link(do("swap", swap, fds), controller.link(link.id))
    assert list(controller.link(link.id).programs) == [Slot.RULE]

    generations = do("history", one)["history"]
    assert [one["action"] for one in generations] == ["attach", "swap"]
    assert [(one["uid"], one["comm"]) for one in generations] == [(0, "python3")] * 2
    times = [entry.time for entry in controller.history(link.id)]
    assert [one["time"] for one in generations] == times
    assert do("detach", one)["generation"] == 2
    assert [other.id for other in controller.links()] == [second.id]


def test_a_link_at_a_netfilter_hook(controller: Controller, make_program: MakeProgram) -> None:
    program = socket_filter(make_program, all_but(UDP), name="no_udp")
    with namespace("ynl") as place:
        netns = os.open(place.path, os.O_RDONLY)
        request = {
            "hook": "nf",
            "family": 2,
            "hooknum": 3,
            "priority": -300,
            "netns-fd": netns,
            "mode": "filter",
            "flags": ["persistent", "report-drops"],
            "programs": programs(packet=program.fd),
        }
        reply = do("attach", request, (program.fd, netns))
        os.close(netns)
        link = controller.link(reply["link"])
        check_link(reply, link)
        assert set(reply["flags"]) == {"persistent", "report-drops"}
        assert (reply["mode"], reply["priority"], reply["netns"]) == ("filter", -300, place.inode)
        place.call(expect_dropped)
        counted = do("get", {"link": link.id})["stats"]
        assert (counted["drops"], counted["slot"][0]["slot"]) == (1, "packet")
    wait_for(lambda: controller.link(link.id).hook.gone)
    assert do("detach", {"link": link.id})["gone"] == "netns"


def expect_dropped() -> None:
    with pytest.raises(PermissionError):
        send_udp("127.0.0.1", 9, [b"x"])


def asleep(pid: int) -> bool:
    """Whether a process sleeps for a time."""
    return Path(f"/proc/{pid}/syscall").read_text().startswith(f"{CLOCK_NANOSLEEP} ")


def test_notifications_are_decoded(controller: Controller, make_program: MakeProgram) -> None:
    """The client gets notifications while it sleeps: its reader of replies fails on them.

    (In 6.12, _ops() forgets which operation it waits for.)
    """
    first = ProgramSet({Slot.ENTRY: make_program(asm.returning(0), name="first").fd})
    second = ProgramSet({Slot.EXIT: make_program(asm.returning(0), name="second").fd})
    with subprocess.Popen(
        command("--subscribe", "links", "--sleep", "5"), stdout=subprocess.PIPE, text=True
    ) as client:

        def heard() -> bool:
            controller.detach(controller.attach(TableHook(), first).id)
            return waiting(client.pid) > 0

        wait_for(heard, timeout=COMMAND_TIMEOUT, what="the client listens")
        link = controller.attach(TableHook(), first, persistent=True)
        states = [link, controller.swap(link.id, second)]
        states += [controller.adopt(link.id), controller.detach(link.id)]
        output, _ = client.communicate(timeout=COMMAND_TIMEOUT)
    of_link = [one for one in json.loads(output) if one["msg"]["link"] == link.id]
    # the end of the swapped set comes when its last packet has gone
    told = [one for one in of_link if one["name"] != "link-ended"]
    names = ["link-attached", "link-swapped", "link-changed", "link-detached"]
    assert [notification["name"] for notification in told] == names
    for notification, state in zip(told, states, strict=True):
        check_link(notification["msg"], state)
    assert [one["msg"].get("reason") for one in told] == [None, None, None, "request"]


def test_a_link_goes_with_the_client_that_made_it(
    controller: Controller, make_program: MakeProgram
) -> None:
    program = make_program().fd
    with controller.link_changes() as changes:
        made = do("attach", {"hook": "table", "programs": programs(entry=program)}, (program,))
        seen: list[LinkChange] = []
        while not any(one.link.id == made["link"] and one.reason for one in seen):
            seen += changes.read(COMMAND_TIMEOUT)
    assert seen[-1].reason is DetachReason.OWNER
    assert made["owner-portid"]
    assert not made["flags"]
    assert controller.links() == []


def test_a_transaction(controller: Controller, make_program: MakeProgram) -> None:
    entry = make_program(asm.returning(0), name="entry")
    packet = socket_filter(make_program, asm.returning(0), name="packet")
    links = [
        controller.attach(TableHook(), ProgramSet({Slot.ENTRY: entry.fd})),
        controller.attach(NfHook.parse("nf:arp/in"), ProgramSet({Slot.PACKET: packet.fd})),
    ]
    ids = [link.id for link in links]
    request: dict[str, Any] = {
        "change": [
            {"link": ids[0], "programs": programs(exit=entry.fd), "expect-generation": 1},
            {"link": ids[1], "programs": programs(packet=packet.fd)},
        ],
        "rollback-after": 3_600_000,
    }
    replies = do("transact", request, (entry.fd, packet.fd))
    assert [(reply["link"], reply["generation"]) for reply in replies] == [(i, 2) for i in ids]
    assert all(3_000_000 < reply["rollback-in"] <= 3_600_000 for reply in replies)
    stale = call("--do", "confirm", "--json", json.dumps({"link": ids[1], "expect-generation": 1}))
    assert "error: -116" in stale.stdout  # ESTALE
    assert "'bad-attr': '.expect-generation'" in stale.stdout
    assert "rollback-in" not in do("confirm", {"link": ids[1], "expect-generation": 2})
    assert [controller.link(i).rollback_in for i in ids] == [None, None]

    del request["rollback-after"]
    done = call("--do", "transact", "--json", json.dumps(request), fds=(entry.fd, packet.fd))
    assert done.returncode == 1
    assert "error: -116" in done.stdout  # ESTALE
    assert "'bad-attr': '.change.expect-generation'" in done.stdout
    assert [controller.link(i).generation for i in ids] == [2, 2]


def numbered(value: Any) -> Any:
    """A request as the library sends it: numbers where the client takes names."""
    if isinstance(value, dict):
        return {name: numbered(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [numbered(inner) for inner in value]
    names = {"table": Hook.TABLE, "entry": Slot.ENTRY, "exit": Slot.EXIT, "packet": Slot.PACKET}
    return names.get(value, value)


def test_refusals_say_what_our_library_says(
    controller: Controller, make_program: MakeProgram
) -> None:
    program = make_program().fd
    with Path(os.devnull).open() as nothing, Connection.open() as connection:
        wrong = nothing.fileno()
        refused = [
            ("attach", {"hook": "table", "programs": programs(entry=program, exit=wrong)}),
            ("attach", {"hook": "table", "programs": programs(packet=program)}),
            ("attach", {"hook": "table", "family": 7, "programs": programs(entry=program)}),
            ("attach", {"programs": programs(entry=program)}),
            ("detach", {"link": 4711}),
        ]
        for name, request in refused:
            done = call("--do", name, "--json", json.dumps(request), fds=(program, wrong))
            assert done.returncode == 1, done.stdout + done.stderr
            with pytest.raises(KernelError) as ours:
                connection.request(Command[name.upper()], numbered(request), name)
            assert f"error: -{ours.value.errno}" in done.stdout
            assert ours.value.extack
            assert ours.value.extack in done.stdout
            attribute = ours.value.attribute
            assert f"'bad-attr': '.{attribute}'" in done.stdout or (
                f"'miss-type': '{attribute}'" in done.stdout
            )
    assert controller.links() == []


def test_statistics(controller: Controller) -> None:
    status = controller.status()
    reply = do("stats", {})
    assert reply["fingerprint"] == FINGERPRINT
    assert reply["module-version"] == status.version
    assert (reply["protocol-major"], reply["protocol-minor"]) == status.protocol
    features = {str(one.name).lower().replace("_", "-") for one in Feature}
    assert set(reply["features"]) == features
    assert [cpu["cpu"] for cpu in reply["cpu"]] == [cpu.cpu for cpu in status.cpus]


def test_events_are_decoded(controller: Controller, make_program: MakeProgram) -> None:
    """The client sleeps between subscribing and reading: packets come until events wait for it."""
    with one_element_map(PERCPU_ARRAY) as payload:
        counting = socket_filter(make_program, asm.counting(payload))
        link = attach(controller, counting, "nf:inet4/output", payload=payload)
        with subprocess.Popen(
            command("--subscribe", "events", "--sleep", "3"), stdout=subprocess.PIPE, text=True
        ) as client:

            def heard() -> bool:
                send_udp("127.0.0.1", 9, [b"x"])
                return waiting(client.pid) > 0

            # before that, the kernel's answers may be pending there
            wait_for(lambda: asleep(client.pid), timeout=COMMAND_TIMEOUT, what="the client sleeps")
            wait_for(heard, timeout=COMMAND_TIMEOUT, what="the client listens")
            output, _ = client.communicate(timeout=COMMAND_TIMEOUT)
        controller.detach(link.id)
    told = json.loads(output)
    assert {message["name"] for message in told} == {"events"}
    message = told[0]["msg"]
    events = message["event"]
    assert message["batch"]["count"] == len(events) == len(message["payload"]) > 0
    event = next(one for one in events if one["dport"] == 9)
    assert list(event) == [field.name.replace("_", "-") for field in fields(Event)]
    assert (event["kind"], event["protocol"], event["link"]) == ("packet", UDP, link.id)
    assert "payload" in event["flags"]
    assert bytes.fromhex(event["daddr"])[:4] == bytes([127, 0, 0, 1])
    assert bytes.fromhex(event["out-name"]).rstrip(b"\0") == b"lo"
    counts = [bytes.fromhex(one["data"]) for one in message["payload"]]
    numbers = [int.from_bytes(count, "little") for count in counts]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [one["event"] for one in message["payload"]] == list(range(len(events)))
