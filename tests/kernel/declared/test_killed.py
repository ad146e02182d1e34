# SPDX-License-Identifier: GPL-2.0
"""apply, killed at any point, is completed by the next one: no link is lost, none made twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ipttctl import apply_state, read_state
from ipttctl.bpf.programs import Program
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, Swap
from ipttctl.link.names import LinkRef
from tests.kernel.support.cli import ipttctl, running
from tests.kernel.support.declared import File, at, contents, links
from tests.kernel.support.kernel import COMMAND_TIMEOUT
from tests.kernel.support.network import Namespace

_fork = multiprocessing.get_context("fork")

pytestmark = pytest.mark.usefixtures("no_links")


class Stopping(Controller):
    """A controller whose process waits at a defined point, to be killed there."""

    def __init__(self, point: str, reached: int) -> None:
        super().__init__()
        self._point, self._reached = point, reached

    def _at(self, point: str) -> None:
        if point == self._point:
            os.write(self._reached, b".")
            signal.pause()

    def attach(self, *arguments: Any, **options: Any) -> Link:
        """Stop before and after an attach."""
        self._at("before attach")
        link = super().attach(*arguments, **options)
        self._at("after attach")
        return link

    def transact(self, swaps: Sequence[Swap], **options: Any) -> list[Link]:
        """Stop before and after a transaction."""
        self._at("before swap")
        swapped = super().transact(swaps, **options)
        self._at("after swap")
        return swapped

    def detach(self, link: LinkRef, **options: Any) -> Link:
        """Stop before a detach."""
        self._at("before detach")
        return super().detach(link, **options)

    def rename(self, link: LinkRef, name: str) -> Link:
        """Stop before a link gets a name."""
        self._at("before rename")
        return super().rename(link, name)


def _apply(path: Path, point: str, reached: int) -> None:
    with Stopping(point, reached) as controller:
        apply_state(controller, read_state(str(path)))


def killed_at(point: str, file: File) -> None:
    """Apply a file in a process that is killed at a point."""
    ours, theirs = os.pipe()
    process = _fork.Process(target=_apply, args=(file.path, point, theirs))
    process.start()
    os.close(theirs)
    assert os.read(ours, 1) == b"."
    os.close(ours)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join(COMMAND_TIMEOUT)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    "point", ["before attach", "after attach", "before swap", "after swap", "before detach"]
)
def test_whoever_is_killed_half_way_is_followed_by_the_next(
    point: str, place: Namespace, file: File, accept: Program, other: Program
) -> None:
    one = at(place, id={"packet": accept.id}, filter="icmp")
    file.write({"kept": one, "swapped": one, "going": one})
    assert file.actions() == ["attach"] * 3
    kept, swapped, going = links()
    changed = one | {"id": {"packet": other.id}}
    file.write({"kept": one, "swapped": changed, "first": changed, "second": changed})

    killed_at(point, file)
    # no link is lost, and each link has the old programs or the new ones
    found = links()
    assert {kept, swapped, going} <= set(found)
    assert found[kept].generation == found[going].generation == 1
    assert found[swapped].generation == (2 if point in {"after swap", "before detach"} else 1)
    attached = {"before attach": 0, "after attach": 1}.get(point, 2)
    assert len(found) == 3 + attached

    file.apply()
    now = links()
    assert len(now) == 4
    assert {kept, swapped} < set(now)
    assert going not in now
    # links attached by then are among the four, and none was made twice
    assert set(found) - {going} <= set(now)
    assert now[kept].generation == 1
    assert [p.id for n in set(now) - {kept} for p in now[n].programs.values()] == [other.id] * 3
    assert file.apply() == []
    assert {link.name for link in now.values()} == {"kept", "swapped", "first", "second"}
    file.write({})
    assert file.actions() == ["detach"] * 4
    assert links() == {}


@pytest.mark.parametrize("point", ["before detach", "before rename"])
def test_a_link_that_moves_gets_its_name_in_the_end(
    point: str, place: Namespace, file: File, accept: Program
) -> None:
    """Old and new are there at once, until the old one goes; also if apply is killed meanwhile."""
    one = {"id": {"packet": accept.id}, "label": {"team": "core"}}
    file.write({"web": at(place, **one)})
    file.apply()
    (old,) = links().values()
    assert (old.name, old.labels) == ("web", {"team": "core"})
    file.write({"web": at(place, **one, hook="nf:inet4/input")})
    killed_at(point, file)
    new = next(link for number, link in links().items() if number != old.id)
    assert new.name == ""
    left = ["detach", "rename"] if point == "before detach" else ["rename"]
    assert file.actions() == left
    (now,) = links().values()
    assert (now.id, now.name, now.generation) == (new.id, "web", 1)
    assert not file.differs()
    file.write({"web": at(place, **one)})
    assert file.actions() == ["attach", "detach"]
    assert [link.name for link in links().values()] == ["web"]
    done = ipttctl("apply", str(file.path), "--reason", "unused")
    assert (done.returncode, done.stdout) == (0, "")
    file.write({})
    assert file.actions() == ["detach"]


def test_whoever_is_killed_while_it_loads_has_changed_nothing(
    place: Namespace, file: File, accept: Program, other: Program, tmp_path: Path
) -> None:
    """The object file never arrives: it is a pipe without a writer."""
    file.write({"a": at(place, id={"packet": accept.id})})
    assert file.actions() == ["attach"]
    before = contents()
    pipe = tmp_path / "slow.o"
    os.mkfifo(pipe)
    changed = at(place, id={"packet": other.id})
    file.write({"a": changed, "b": changed, "c": at(place, object={"packet": f"{pipe}:x"})})
    with running("apply", str(file.path)) as applying:
        # succeeds once the command reads
        writer = os.open(pipe, os.O_WRONLY)
        applying.process.kill()
        applying.process.wait(COMMAND_TIMEOUT)
        os.close(writer)
    assert contents() == before
    file.write({"a": changed, "b": changed})
    assert sorted(file.actions()) == ["attach", "swap"]
