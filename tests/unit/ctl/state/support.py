# SPDX-License-Identifier: GPL-2.0
"""A machine whose links are declared: the module is one in user space."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipttctl.system import netns
from ipttproto import Action, Command, Hook, LinkFlag, SwapOutcome
from tests.unit.ctl.support import FakeModule, RefusalError, link

if TYPE_CHECKING:
    pass

OWN_NETNS = netns.resolve(str(netns.OWN))
PERSISTENT = int(LinkFlag.PERSISTENT)
MISSING = 0x7FFFFFFF
_NOTES = ("name", "labels", "reason-text")


class Machine:
    """Links that are attached, swapped and detached as by the module, with programs by id."""

    def __init__(self, module: FakeModule) -> None:
        self.links: dict[int, dict[str, Any]] = {}
        self.refused: dict[Command, int] = {}
        self._last = 0
        for command, handler in (
            (Command.GET, self._get),
            (Command.ATTACH, self._attach),
            (Command.TRANSACT, self._transact),
            (Command.DETACH, self._detach),
            (Command.RENAME, self._rename),
            (Command.CONFIRM, self._confirm),
            (Command.HISTORY, self._history),
        ):
            module.handlers[command] = handler
        self._transactions = 0
        self._before: dict[int, dict[str, Any]] = {}

    def add(self, **changes: Any) -> int:
        """Add a link that exists already."""
        self._last += 1
        made = link(link=self._last, flags=PERSISTENT, owner_portid=0, programs={})
        made.pop("owner_portid")
        self.links[self._last] = made | {"generation": 1} | changes
        return self._last

    def _refuse(self, command: Command) -> None:
        if command in self.refused:
            raise RefusalError(self.refused[command], {"message": "not today"})

    def _get(self, command: Command, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._refuse(command)
        return [self.links[asked["link"]]] if "link" in asked else list(self.links.values())

    def _attach(self, command: Command, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._refuse(command)
        place = {
            name: asked[name]
            for name in ("hook", "family", "hooknum", "priority", "mode", "table", "chain")
            if name in asked
        }
        if asked["hook"] == Hook.NF or "netns-fd" in asked:
            place |= {"netns": OWN_NETNS.inode, "netns-cookie": OWN_NETNS.cookie}
        self._check_free(asked.get("name"))
        notes = {name: asked[name] for name in _NOTES if name in asked}
        number = self.add(**place, flags=asked["flags"], programs=_reply(asked), **notes)
        return [self.links[number]]

    def _check_free(self, name: str | None) -> None:
        """Refuse a name that a link has."""
        if name is not None and any(one.get("name") == name for one in self.links.values()):
            raise RefusalError(errno.EEXIST, {"message": "a link has this name"})

    def _rename(self, command: Command, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._refuse(command)
        found = self.links[asked["link"]]
        if found.get("name") != asked["new-name"]:
            self._check_free(asked["new-name"])
        found["name"] = asked["new-name"]
        return [found]

    def _transact(self, command: Command, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._refuse(command)
        if any(self._waits(change["link"]) for change in asked["change"]):
            raise RefusalError(errno.EINPROGRESS)
        self._transactions += 1
        for change in asked["change"]:
            found = self.links[change["link"]]
            assert change["expect-generation"] == found["generation"]
            found["transaction"] = self._transactions
            found.pop("outcome", None)
            if "rollback-after" in asked or "guard" in asked:
                self._before[change["link"]] = found["programs"]
                found["outcome"] = SwapOutcome.WAITING
                found["guard"] = asked.get("guard", ())
            if "rollback-after" in asked:
                found["rollback-in"] = asked["rollback-after"]
            found |= {"programs": _reply(change), "generation": found["generation"] + 1}
            found |= {"labels": change["labels"]} if "labels" in change else {}
        return [self.links[change["link"]] for change in asked["change"]]

    def _waits(self, link: int) -> bool:
        return bool(self.links[link].get("outcome") == SwapOutcome.WAITING)

    def roll_back(self) -> None:
        """Do what the module does once the time to confirm has passed."""
        for number, programs in self._before.items():
            found = self.links[number]
            found.pop("rollback-in", None)
            found |= {
                "outcome": SwapOutcome.ROLLBACK,
                "guard": (),
                "programs": programs,
                "generation": found["generation"] + 1,
            }
        self._before.clear()

    def _confirm(self, command: Command, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._refuse(command)
        transaction = self.links[asked["link"]]["transaction"]
        for number in list(self._before):
            if self.links[number]["transaction"] == transaction:
                self.links[number].pop("rollback-in", None)
                self.links[number] |= {"outcome": SwapOutcome.CONFIRMED, "guard": ()}
                del self._before[number]
        return [self.links[asked["link"]]]

    def _history(self, command: Command, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._refuse(command)
        found = self.links[asked["link"]]
        entry = {"generation": found["generation"], "action": Action.SWAP, "pid": 77, "comm": "x"}
        return [{"history": [entry]}]

    def _detach(self, command: Command, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._refuse(command)
        generation = self.links[asked["link"]]["generation"]
        if asked.get("expect-generation", generation) != generation:
            raise RefusalError(errno.ESTALE)
        self._before.pop(asked["link"], None)
        return [self.links.pop(asked["link"])]


def _reply(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A program set in a reply; the descriptors stand for ids."""
    given = asked["programs"]
    code = given.get("filter")
    return {
        "program": [
            {"slot": p["slot"], "id": p["fd"], "tag": bytes(8), "name": "x"}
            for p in given["program"]
        ],
        **({"filter": code, "filter-length": len(code) // 8} if code else {}),
        "cookie": given.get("cookie", 0),
        **({"limits": given["limits"]} if "limits" in given else {}),
    }


def adopt(machine: Machine, link: int) -> None:
    """Have a process own a link."""
    machine.links[link] |= {"flags": 0, "owner-portid": 9, "owner-pid": 7, "owner-comm": "boss"}


def given(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


#: instructions that let every packet through
RETURN = "1,6 0 0 1"
TWO = """
links:
  verdicts: {fd: {exit: 7}, cookie: 0x10, filter: udp port 53}
  input: {hook: "nf:inet4/input@raw", fd: {packet: 8}}
"""


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()
