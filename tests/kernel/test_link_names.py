# SPDX-License-Identifier: GPL-2.0
"""Names of links, their labels, and the reasons for changes: kept by the module."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import ExpectationError, KernelError, LinkGoneError, NameTakenError
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, LinkChange, ProgramSet, Swap
from ipttctl.link.wire import Connection
from ipttproto import Action, Command, DetachReason, Slot
from ipttproto.family import limit
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.cli import ipttctl, running
from tests.kernel.support.kernel import COMMAND_TIMEOUT, wait_for

HOOK = NfHook.parse("nf:inet4/output")
#: the longest of everything
NAME = "n" * limit("LINK_NAME")
LABELS = {
    f"k{number}".ljust(limit("LABEL_KEY"), "x"): "v" * limit("LABEL_VALUE")
    for number in range(limit("MAX_LABELS"))
}
REASON = "r" * limit("REASON")
MISSPELT = ("", "3", "3rd", "-x", ".x", "a/b", "a b", "é", "a\n", "0x10")


@pytest.fixture
def programs(packet: Program) -> ProgramSet:
    return ProgramSet({Slot.PACKET: packet.fd})


@pytest.fixture
def connection() -> Iterator[Connection]:
    with Connection.open() as opened:
        yield opened


def raw(programs: ProgramSet, **changes: Any) -> dict[str, Any]:
    """The attributes of an attach to a netfilter hook."""
    place = {"hook": 2, "family": 2, "hooknum": 3}
    return place | {"programs": programs.attributes()} | changes


def label(key: str, value: str = "") -> dict[str, str]:
    return {"key": key, "value": value}


# --- names ----------------------------------------------------------------------------------------


def test_a_name_is_as_good_as_the_id(controller: Controller, programs: ProgramSet) -> None:
    made = controller.attach(HOOK, programs, name="web")
    other = controller.attach(HOOK, programs)
    assert (made.name, other.name) == ("web", "")
    assert controller.link("web") == controller.link(made.id) == made
    swapped = controller.swap("web", programs, expect_generation=1, rollback_after=60)
    assert (swapped.id, swapped.name, swapped.generation) == (made.id, "web", 2)
    assert controller.confirm("web", expect_generation=2).rollback_in is None
    assert [entry.generation for entry in controller.history("web")] == [1, 2]
    both = controller.transact([Swap("web", programs), Swap(other.id, programs)])
    assert [link.id for link in both] == [made.id, other.id]
    with pytest.raises(KernelError, match="in the transaction twice"):
        controller.transact([Swap("web", programs), Swap(made.id, programs)])
    assert controller.adopt("web").id == made.id
    assert controller.detach("web").id == made.id
    with pytest.raises(LinkGoneError):
        controller.link("web")
    controller.detach(other.id)


def test_no_two_links_have_a_name(controller: Controller, programs: ProgramSet) -> None:
    """Links at any kind of hook; the name is free again when its link is gone."""
    first = controller.attach(HOOK, programs, name="web")
    before = controller.links()
    for hook in (HOOK, NfHook.parse("nf:inet6/input")):
        with pytest.raises(NameTakenError, match=r"link .*has this name") as refused:
            controller.attach(hook, programs, name="web")
        assert refused.value.errno == errno.EEXIST
        assert refused.value.attribute == "name"
        if "another" not in refused.value.extack:
            assert f"link {first.id} " in refused.value.extack
    assert controller.links() == before
    longer = controller.attach(HOOK, programs, name="webs")
    with pytest.raises(NameTakenError):
        controller.rename("webs", "web")
    assert controller.link(longer.id).name == "webs"
    controller.detach(first.id)
    assert controller.attach(HOOK, programs, name="web").id > longer.id


def test_renaming(controller: Controller, programs: ProgramSet) -> None:
    link = controller.attach(HOOK, programs)
    with controller.link_changes() as changes:
        assert controller.rename(link.id, "web").name == "web"
        assert controller.rename("web", "web").name == "web"
        renamed = controller.rename("web", NAME)
        told = changes.read(10)
    assert (renamed.id, renamed.name, renamed.generation) == (link.id, NAME, 1)
    assert [(c.change, c.link.name) for c in told][-1] == (Change.CHANGED, NAME)
    with pytest.raises(LinkGoneError):
        controller.rename("web", "other")
    assert len(controller.history(NAME)) == 1
    controller.detach(NAME)


def test_misspelt_names(
    connection: Connection, controller: Controller, programs: ProgramSet
) -> None:
    link = controller.attach(HOOK, programs, name="good")
    for name in MISSPELT:
        with pytest.raises(KernelError, match="a name begins with a letter") as refused:
            connection.request(Command.ATTACH, raw(programs, name=name), "attaching")
        assert refused.value.errno == errno.EINVAL, name
        with pytest.raises(KernelError, match="a name begins with a letter") as refused:
            connection.request(Command.RENAME, {"link": link.id, "new-name": name}, "renaming")
        assert refused.value.attribute == "new-name"
        with pytest.raises(LinkGoneError):
            controller.link(name)
    assert controller.links() == [link]
    controller.detach(link.id)


def test_a_link_is_given_in_one_way(
    connection: Connection, controller: Controller, programs: ProgramSet
) -> None:
    link = controller.attach(HOOK, programs, name="web")
    both = {"link": link.id, "name": "web"}
    for command in (Command.GET, Command.DETACH, Command.HISTORY, Command.ADOPT, Command.CONFIRM):
        with pytest.raises(KernelError, match="not by both"):
            connection.request(command, both, "asking")
        with pytest.raises(KernelError, match="no link is given"):
            connection.request(command, {}, "asking")
    with pytest.raises(KernelError, match="no new name"):
        connection.request(Command.RENAME, {"link": link.id}, "renaming")
    change = {**both, "programs": programs.attributes()}
    for command, request in ((Command.SWAP, change), (Command.TRANSACT, {"change": [change]})):
        with pytest.raises(KernelError, match="not by both"):
            connection.request(command, request, "swapping")
    controller.detach("web")


# --- labels and reasons ---------------------------------------------------------------------------


def test_labels_stay_until_others_are_given(controller: Controller, programs: ProgramSet) -> None:
    labels = {"team": "core", "empty": "", "any-text": "\t=\udcff \u202e"}
    link = controller.attach(HOOK, programs, labels=labels)
    assert link.labels == labels
    assert list(link.labels) == list(labels)
    assert controller.swap(link.id, programs).labels == labels
    assert controller.transact([Swap(link.id, programs)])[0].labels == labels
    assert controller.swap(link.id, programs, labels={"team": "edge"}).labels == {"team": "edge"}
    assert controller.transact([Swap(link.id, programs, labels={})])[0].labels == {}
    assert controller.links()[0].labels == {}
    controller.detach(link.id)


def test_labels_go_back_with_a_roll_back(controller: Controller, programs: ProgramSet) -> None:
    link = controller.attach(HOOK, programs, labels={"version": "1"})
    swapped = controller.swap(
        link.id, programs, labels={"version": "2"}, rollback_after=0.2, reason="canary"
    )
    assert (swapped.labels, swapped.reason) == ({"version": "2"}, "canary")
    wait_for(lambda: controller.link(link.id).generation == 3, what="the roll-back")
    back = controller.link(link.id)
    assert (back.labels, back.reason) == ({"version": "1"}, "")
    # kept by a swap that is rolled back, they have two users
    controller.swap(link.id, programs, rollback_after=60)
    assert controller.detach(link.id).labels == {"version": "1"}


def test_as_much_as_a_link_takes(controller: Controller, programs: ProgramSet) -> None:
    """Every link of a full hook is in a dump and in the answer of a transaction."""
    most = limit("MAX_CHANGES")
    with controller.link_changes() as changes:
        made = [
            controller.attach(
                HOOK, programs, name=f"{n:02}".rjust(limit("LINK_NAME"), "n"), labels=LABELS,
                reason=REASON,
            )
            for n in range(most)
        ]  # fmt: skip  # pairs together
        assert [(link.labels, link.reason) for link in made] == [(LABELS, REASON)] * most
        assert controller.links() == made
        told: list[Link] = []
        while len(told) < most:
            told += [change.link for change in changes.read(COMMAND_TIMEOUT)]
    assert told == made
    # the first dump of a socket has the smallest buffer
    with Controller() as other:
        assert other.links() == made
    swaps = [Swap(link.name, programs, labels=LABELS) for link in made]
    for _ in range(limit("HISTORY_GENERATIONS")):
        swapped = controller.transact(swaps, reason=REASON)
    assert [link.labels for link in swapped] == [LABELS] * most
    for link in made:
        assert {entry.reason for entry in controller.history(link.id)} == {REASON}
        controller.detach(link.id)


@pytest.mark.parametrize(
    ("labels", "number", "words"),
    [
        ([label(f"k{n}") for n in range(limit("MAX_LABELS") + 1)], errno.E2BIG, "more labels"),
        ([label("a", "1"), label("b"), label("a", "2")], errno.EINVAL, "given twice"),
        ([{"key": "a"}], errno.EINVAL, "needs its key and its value"),
        ([{"value": "a"}], errno.EINVAL, "needs its key and its value"),
        ([label("7", "a")], errno.EINVAL, "a name begins with a letter"),
        ([label("")], errno.EINVAL, "a name begins with a letter"),
    ],
)
def test_refused_labels(
    connection: Connection,
    controller: Controller,
    programs: ProgramSet,
    labels: list[dict[str, str]],
    number: int,
    words: str,
) -> None:
    link = controller.attach(HOOK, programs, labels={"old": "1"})
    nest = {"labels": {"label": labels}}
    swap = {"link": link.id, "programs": programs.attributes(), **nest}
    for command, request in (
        (Command.ATTACH, raw(programs, **nest)),
        (Command.SWAP, swap),
        (Command.TRANSACT, {"change": [swap]}),
    ):
        with pytest.raises(KernelError, match=words) as refused:
            connection.request(command, request, "asking")
        assert refused.value.errno == number
    assert controller.links() == [link]
    controller.detach(link.id)


def test_reasons_and_transactions(controller: Controller, programs: ProgramSet) -> None:
    """In replies, in notifications and in the history; a transaction is one number for all."""
    with controller.link_changes() as changes:
        one, two = (controller.attach(HOOK, programs, reason=why) for why in ("one", "two"))
        swaps = [Swap(link.id, programs) for link in (one, two)]
        together = controller.transact(swaps, reason="together", rollback_after=0.2)
        wait_for(lambda: controller.link(two.id).generation == 3, what="the roll-back")
        alone = controller.swap(one.id, programs, wait=True)
        gone = controller.detach(one.id, reason="done")
        told: list[LinkChange] = []
        while len(told) < 8:
            told += changes.read(COMMAND_TIMEOUT)
        histories = {two.id: controller.history(two.id)}
    assert (one.reason, two.reason) == ("one", "two")
    assert one.transaction != two.transaction
    assert together[0].transaction == together[1].transaction > two.transaction
    assert [link.reason for link in together] == ["together"] * 2
    assert (alone.reason, gone.reason) == ("", "done")
    assert alone.transaction > together[0].transaction
    assert [(c.change, c.link.id, c.link.reason) for c in told] == [
        (Change.ATTACHED, one.id, "one"),
        (Change.ATTACHED, two.id, "two"),
        (Change.SWAPPED, one.id, "together"),
        (Change.SWAPPED, two.id, "together"),
        (Change.SWAPPED, one.id, ""),
        (Change.SWAPPED, two.id, ""),
        (Change.SWAPPED, one.id, ""),
        (Change.DETACHED, one.id, "done"),
    ]
    assert told[2].sequence == together[0].transaction
    number = together[1].transaction
    assert [(e.action, e.transaction, e.reason) for e in histories[two.id]] == [
        (Action.ATTACH, two.transaction, "two"),
        (Action.SWAP, number, "together"),
        (Action.ROLLBACK, number, ""),
    ]
    controller.detach(two.id)


def test_they_survive_their_controller(controller: Controller, programs: ProgramSet) -> None:
    with Controller() as other:
        other.attach(
            HOOK, programs, persistent=True, name="web", labels={"team": "core"}, reason="why"
        )
    with controller.link_changes() as changes:
        link = controller.link("web")
        assert (link.labels, link.reason) == ({"team": "core"}, "why")
        with Controller() as owner:
            owner.adopt("web")
        told: list[LinkChange] = []
        while len(told) < 2:
            told += changes.read(COMMAND_TIMEOUT)
        adopted, gone = told
    assert adopted.link.name == gone.link.name == "web"
    # nobody gave a reason for that
    assert (gone.reason, gone.link.reason) == (DetachReason.OWNER, "")
    assert controller.links() == []


# --- replaced by name -----------------------------------------------------------------------------


def test_replacing_makes_the_link_or_swaps_it(
    controller: Controller, programs: ProgramSet, make_program: MakeProgram
) -> None:
    other = ProgramSet({Slot.PACKET: make_program(type=ProgramType.SOCKET_FILTER, name="new").fd})
    made = controller.replace("web", HOOK, programs, labels={"team": "core"}, reason="first")
    assert (made.name, made.generation, made.persistent) == ("web", 1, True)
    swapped = controller.replace("web", HOOK, other, reason="second")
    assert (swapped.id, swapped.generation, swapped.reason) == (made.id, 2, "second")
    assert swapped.programs[Slot.PACKET].name == "new"
    assert swapped.labels == {"team": "core"}
    for elsewhere in ("nf:inet4/output@raw", "nf:inet4/input"):
        with pytest.raises(NameTakenError, match="at another place"):
            controller.replace("web", NfHook.parse(elsewhere), programs)
    with Controller() as owner:
        owner.adopt("web")
        with pytest.raises(NameTakenError, match="belongs to process"):
            controller.replace("web", HOOK, programs)
    assert controller.links() == []


def test_replacing_expects_what_it_saw(
    controller: Controller, programs: ProgramSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else swaps the link between the look at it and the swap."""
    controller.replace("web", HOOK, programs)
    look = controller.link

    def late(link: int | str) -> Link:
        found = look(link)
        with Controller() as other:
            other.swap(link, programs)
        return found

    monkeypatch.setattr(controller, "link", late)
    with pytest.raises(ExpectationError):
        controller.replace("web", HOOK, programs)
    monkeypatch.undo()
    assert controller.detach("web").generation == 2


# --- on the command line --------------------------------------------------------------------------


def shown(*arguments: str) -> list[dict[str, Any]]:
    """The objects that a command prints."""
    done = ipttctl(*arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("no_links")
def test_attaching_twice_is_one_link(packet: Program) -> None:
    given = (
        "attach", "--hook", "nf:inet4/output", "--id", f"packet={packet.id}",
        "--name", "web", "--persist",
    )  # fmt: skip  # pairs together
    (made,) = shown(*given, "--label", "team=core", "--label", "tier=", "--reason", "first try")
    assert (made["name"], made["reason_text"]) == ("web", "first try")
    assert made["labels"] == {"team": "core", "tier": ""}
    refused = ipttctl(*given)
    assert refused.returncode == 11
    assert "has this name [EEXIST]" in refused.stderr
    assert "--replace" in refused.stderr
    (replaced,) = shown(*given, "--replace", "--reason", "again")
    assert (replaced["link"], replaced["generation"]) == (made["link"], 2)
    assert (replaced["labels"], replaced["reason_text"]) == (made["labels"], "again")
    elsewhere = (*given[:2], "nf:inet4/input", *given[3:], "--replace")
    assert ipttctl(*elsewhere).returncode == 11
    assert [link["link"] for link in shown("links")] == [made["link"]]
    text = ipttctl("links").stdout
    assert text.startswith(f"link={made['link']} name=web gen=2 ")
    assert ' label.team=core label.tier="" reason-text=again ' in text


@pytest.mark.usefixtures("no_links")
def test_a_name_stands_wherever_an_id_does(packet: Program) -> None:
    (link,) = shown(
        "attach", "--hook", "nf:inet4/output", "--id", f"packet={packet.id}",
        "--name", "web", "--persist",
    )  # fmt: skip  # pairs together
    with running("events", "--links", "--link", "web", "-o", "json") as changes:
        changes.wait_for_text("listening")
        swapped = shown(
            "swap", "web", "--id", f"packet={packet.id}", "--rollback-after", "1h",
            "--label", "a=b", "--reason", "try",
        )  # fmt: skip  # pairs together
        assert shown("confirm", "web")[0]["rollback_in_s"] is None
        assert shown("rename", "web", "edge")[0]["name"] == "edge"
        assert shown("rename", str(link["link"]), "web")[0]["name"] == "web"
        assert shown("links", "web")[0]["link"] == link["link"]
        history = shown("history", "web")
        assert ipttctl("maps", "web").returncode == 0
        assert "has no key" not in ipttctl("map", "dump", "web/x").stderr
        assert shown("detach", "web", "--reason", "all done")[0]["reason_text"] == "all done"
        wait_for(lambda: "detached" in changes.out(), what="the end")
        told = changes.finish()
    assert [entry["reason_text"] for entry in history] == [None, "try"]
    assert history[1]["transaction"] == swapped[0]["transaction"]
    assert [one["change"] for one in told] == ["list", "swapped", "changed", "changed", "detached"]
    assert told[1]["made"]["reason_text"] == told[1]["reason_text"] == "try"
    assert told[-1]["reason_text"] == "all done"
    for command in ("links", "history", "detach", "adopt", "confirm", "maps"):
        assert ipttctl(command, "web").returncode == 6, command
        assert ipttctl(command, "web/3").returncode == 2, command
    text = ipttctl("history", "web").stderr
    assert "web" in text
