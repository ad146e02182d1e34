# SPDX-License-Identifier: GPL-2.0
"""Files of declared links, and applications of them that are killed at any point."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipttctl.bpf.maps import Map
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link
from ipttctl.state import State, Step, Terms, apply_state
from ipttctl.state.file import read_state
from ipttctl.state.journal import Record
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import COMMAND_TIMEOUT
from tests.kernel.support.network import Namespace

_fork = multiprocessing.get_context("fork")


def links() -> dict[int, Link]:
    """The links there are, by id."""
    with Controller() as controller:
        return {link.id: link for link in controller.links()}


def contents() -> list[tuple[int, int, list[int]]]:
    """The state of the links: ids, generations, programs."""
    return [
        (link.id, link.generation, sorted(p.id for p in link.programs.values()))
        for link in links().values()
    ]


class File:
    """A declaration, written again for each use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, declared: Mapping[str, Any]) -> None:
        """Declare these links."""
        self.path.write_text(json.dumps({"links": declared}))

    def apply(self, *options: str) -> list[dict[str, Any]]:
        """Apply the file and return the steps."""
        done = ipttctl("apply", str(self.path), "-o", "json", *options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def actions(self, *options: str) -> list[str]:
        """Apply the file and return the actions of the steps."""
        return [step["action"] for step in self.apply(*options)]

    def differs(self, *options: str) -> bool:
        """Whether diff reports a difference."""
        done = ipttctl("diff", str(self.path), *options)
        assert done.returncode in {0, 9}, done.stderr
        assert bool(done.stdout) == (done.returncode == 9)
        return done.returncode == 9

    def state(self) -> State:
        """The state that it declares."""
        return read_state(str(self.path))


def at(place: Namespace, **options: Any) -> dict[str, Any]:
    """The options of a link at a hook of a namespace."""
    return {"hook": "nf:inet4/output", "netns": place.name, **options}


def blocking(place: Namespace, blocklist: Path, **options: Any) -> dict[str, Any]:
    """The options of a link that drops what a map of its program has."""
    source = {"packet": f"{blocklist}:blocklist"}
    return at(place, mode="filter", object=source, **options)


def arrives(place: Namespace, address: str) -> bool:
    """Whether a ping to an address of the namespace is answered."""
    return " 0% packet loss" in place.ping(address, check=False)


def applied(state: State, terms: Terms) -> list[Step]:
    """Apply a state in this process."""
    with Controller() as controller:
        return apply_state(controller, state, terms=terms)


#: all that apply does to the machine and to its record
_CHANGES: Sequence[tuple[type, str]] = (
    (Controller, "attach"),
    (Controller, "transact"),
    (Controller, "confirm"),
    (Controller, "detach"),
    (Controller, "rename"),
    (Map, "update"),
    (Map, "delete"),
    (Record, "write"),
)


def killed_before(change: int, file: File, terms: Terms) -> str | None:
    """Apply a file in a process that is killed right before its Nth change, from 0.

    Returns the name of that change; None if the process made fewer.
    """
    ours, theirs = os.pipe()
    process = _fork.Process(target=_apply_until, args=(change, file, terms, theirs))
    process.start()
    os.close(theirs)
    name = os.read(ours, 64).decode()
    os.close(ours)
    assert process.pid
    if name:
        os.kill(process.pid, signal.SIGKILL)
    process.join(COMMAND_TIMEOUT)
    assert process.exitcode == (-signal.SIGKILL if name else 0)
    return name or None


def _apply_until(change: int, file: File, terms: Terms, reached: int) -> None:
    made = 0

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            if made == change:
                os.write(reached, name.encode())
                signal.pause()
            made += 1
            return method(*arguments, **options)

        return call

    for kind, name in _CHANGES:
        setattr(kind, name, counted(name, getattr(kind, name)))
    applied(file.state(), terms)
