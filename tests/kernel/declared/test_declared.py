# SPDX-License-Identifier: GPL-2.0
"""apply: files with owners, swaps that wait, written plans, digests, and kill -9 at every step."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ipttctl import Map
from ipttctl.bpf.programs import Program
from ipttctl.bpf.specs import MapSpec
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.state import Terms
from ipttctl.state.journal import RECORD
from ipttctl.state.model import OWNER_LABEL
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.declared import (
    File,
    applied,
    arrives,
    at,
    blocking,
    killed_before,
    links,
)
from tests.kernel.support.kernel import COMMAND_TIMEOUT, load_module, unload_module, wait_for
from tests.kernel.support.network import Namespace
from tests.kernel.support.nf import socket_filter

HASH = 1

pytestmark = pytest.mark.usefixtures("no_links")


def swapped(link: int, program: Program) -> None:
    """Swap a link as somebody else would."""
    with Controller() as controller:
        controller.swap(link, ProgramSet({Slot.PACKET: program.fd}))


def test_no_file_touches_what_another_declares(
    place: Namespace, file: File, accept: Program, make_program: MakeProgram
) -> None:
    """Owners are in the module: they outlive the record, and the labels that somebody replaces."""
    with Map.create(MapSpec("shared", HASH, 4, 4, 4)) as shared:
        code = asm.load_map(asm.R1, shared.fd) + asm.returning(1)
        counting = socket_filter(make_program, code, name="counting")
        one = at(place, id={"packet": accept.id})
        file.write({"a": at(place, id={"packet": counting.id}, maps={"shared": {"1": 1}})})
        assert file.actions("--owner", "web") == ["set", "attach"]
        file.write({"b": one})
        assert file.actions("--owner", "db") == ["attach"]
        file.write({"c": one})
        assert file.actions("--prune") == ["attach"]
        a, b, c = links().values()
        assert [link.labels.get(OWNER_LABEL) for link in (a, b, c)] == ["web", "db", None]

        def refused(*options: str) -> str:
            before = links()
            done = ipttctl("apply", str(file.path), *options)
            assert (done.returncode, done.stdout) == (21, ""), done
            assert links().keys() == before.keys()
            return done.stderr

        RECORD.unlink()
        file.write({"a": one})
        words = f"link {a.id} belongs to the file of owner 'web', not to the file "
        assert f"{words}of owner 'db'" in refused("--owner", "db")
        assert f"{words}without an owner" in refused()
        # with the record that knows it: a map that two links use, declared by one of them
        file.write({"a": at(place, id={"packet": counting.id}, maps={"shared": {"1": 1}})})
        assert file.actions("--owner", "web") == []
        file.write(
            {"b": one, "d": at(place, id={"packet": counting.id}, maps={"shared": {"1": 2}})}
        )
        assert "d/shared: the map, which link" in refused("--owner", "db")
        assert dict(shared.dump()) == {1: 1}

        assert ipttctl("swap", "a", "--id", f"packet={accept.id}", "--label", "x=y").returncode == 0
        file.write({"a": one})
        assert f"{words}without an owner" in refused()
        [step] = file.apply("--owner", "web")
        assert (step["action"], step["changes"]) == ("swap", ["owner"])
        assert links()[a.id].labels == {"x": "y", OWNER_LABEL: "web"}
        assert file.actions("--owner", "db", "--take") == ["swap", "detach"]
        assert sorted(links()) == [a.id, c.id]
        file.write({})
        assert file.actions("--owner", "web") == []
        assert file.actions("--owner", "db") == ["detach"]


def test_what_is_no_program_leaves_the_programs(
    place: Namespace, file: File, blocklist: Path
) -> None:
    """Labels, owner, cookie and filter change: the program stays loaded, and with it its maps."""
    file.write({"guard": blocking(place, blocklist)})
    assert file.actions() == ["attach"]
    [made] = links().values()
    assert ipttctl("map", "set", "guard/blocked4", "127.2.0.0/16", "0").returncode == 0
    assert not arrives(place, "127.2.0.1")
    other = {"label": {"team": "core"}, "cookie": 7, "filter": "icmp"}
    maps = {"blocked4": ["127.1.0.0/16"]}
    for declared, options, changes in (
        (other, (), ["filter", "cookie", "labels"]),
        (other, ("--owner", "web", "--take"), ["owner"]),
        ({**other, "cookie": 8, "maps": maps}, ("--owner", "web"), ["cookie"]),
    ):
        file.write({"guard": blocking(place, blocklist, **declared)})
        *of_maps, swap = file.apply(*options)
        assert (swap["action"], swap["changes"]) == ("swap", changes)
        assert not file.differs(*options)
        [now] = links().values()
        assert now.programs == made.programs
        # what nobody declared is there until somebody does
        assert arrives(place, "127.2.0.1") == bool(of_maps)
    assert not arrives(place, "127.1.0.1")
    assert (now.id, now.generation, now.cookie) == (made.id, 4, 8)


def test_a_canary_is_confirmed_or_goes_back(
    place: Namespace, file: File, blocklist: Path, tmp_path: Path
) -> None:
    """Programs of a file: after a roll-back they are recognized, and keep their maps."""
    current = tmp_path / "current.o"
    shutil.copy(blocklist, current)
    old = {"guard": blocking(place, current, maps={"blocked4": ["127.1.0.0/16"]})}
    going = at(place, hook="nf:inet4/input", object={"packet": f"{blocklist}:blocklist"})
    file.write({**old, "going": going})
    assert sorted(file.actions()) == ["attach", "attach", "set"]
    assert not arrives(place, "127.1.0.1")
    with current.open("ab") as end:
        end.write(bytes(16))
    new = {"guard": blocking(place, current, maps={"blocked4": ["127.2.0.0/16"]})}
    file.write(new)
    assert file.actions("--rollback-after", "1h") == ["set", "swap"]
    assert arrives(place, "127.1.0.1")
    assert not arrives(place, "127.2.0.1")
    told = ipttctl("diff", str(file.path))
    assert (told.returncode, told.stdout) == (0, "")
    assert re.match(r"guard: the last swap of link \d+ is rolled back in 3\d+ s ", told.stderr)
    assert file.actions() == []
    file.write({"guard": old["guard"] | {"cookie": 7}})
    refused = ipttctl("apply", str(file.path))
    assert (refused.returncode, "[EINPROGRESS]" in refused.stderr) == (12, True)
    file.write(new)
    assert file.actions("--confirm") == ["confirm", "detach"]
    assert not file.differs()
    (guard,) = links().values()
    assert (guard.generation, guard.rollback_in) == (2, None)

    # nobody confirms the next one
    with current.open("ab") as end:
        end.write(bytes(16))
    assert file.actions("--rollback-after", "500ms") == ["set", "swap"]
    wait_for(lambda: links()[guard.id].generation == 4, what="the roll-back")
    assert file.differs()
    late = ipttctl("apply", str(file.path), "--confirm")
    assert (late.returncode, links()[guard.id].generation) == (14, 4), late
    content = current.read_bytes()
    current.write_bytes(content[:-16])
    assert not file.differs()
    assert not arrives(place, "127.2.0.1")
    assert links()[guard.id].generation == 4

    # a guard sees what the new programs drop
    current.write_bytes(content + bytes(16))
    file.write(new)
    assert file.actions("--guard", "drops < 1") == ["set", "swap"]
    assert "when 'drops < 1' does not hold" in ipttctl("diff", str(file.path)).stderr
    arrives(place, "127.2.0.1")
    wait_for(lambda: links()[guard.id].generation == 6, timeout=COMMAND_TIMEOUT, what="the guard")
    late = ipttctl("apply", str(file.path), "--confirm")
    assert (late.returncode, "was rolled back: drops < 1" in late.stderr) == (14, True), late


def test_a_plan_is_carried_out_on_the_host_that_it_saw(
    place: Namespace, file: File, accept: Program, other: Program, tmp_path: Path
) -> None:
    file.write({"a": at(place, id={"packet": accept.id}), "c": at(place, id={"packet": other.id})})
    assert file.actions("--owner", "web") == ["attach", "attach"]
    a, c = links()
    changed = at(place, id={"packet": other.id})
    file.write({"a": changed, "b": changed})
    plan = tmp_path / "plan.json"

    def planned() -> list[dict[str, Any]]:
        done = ipttctl("diff", str(file.path), "--owner", "web", "-o", "json")
        assert done.returncode == 9, done.stderr
        plan.write_text(done.stdout)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def refused(words: str) -> None:
        before = links()
        done = ipttctl("apply", "--plan", str(plan))
        assert (done.returncode, done.stdout) == (20, ""), done
        assert words in done.stderr
        assert {n: one.generation for n, one in links().items()} == {
            n: one.generation for n, one in before.items()
        }

    head, *steps = planned()
    assert head["module_life"] == Path("/sys/module/ipttrace").stat().st_ino
    assert head["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert [step["action"] for step in steps] == ["swap", "attach", "detach"]
    swapped(c, accept)
    refused(f"link {c}: generation is 2, and was 1")
    planned()
    given = ("--hook", "nf:inet4/input", "--netns", place.name, "--id", f"packet={accept.id}")
    assert ipttctl("attach", *given, "--name", "b", "--persist").returncode == 0
    refused(f"b: link {max(links())} has this name, and is at another place")
    assert ipttctl("detach", "b").returncode == 0
    # others come and go: they are no part of the plan
    assert ipttctl("attach", *given, "--persist").returncode == 0
    done = ipttctl("apply", "--plan", str(plan))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr
    assert links()[a].generation == 2
    refused(f"link {a}: generation is 2, and was 1")

    file.write({"a": at(place, id={"packet": accept.id})})
    planned()
    assert ipttctl("detach", "--all").returncode == 0
    unload_module()
    load_module()
    refused("module_life is ")


def test_digests_of_programs(
    place: Namespace, file: File, accept: Program, blocklist: Path
) -> None:
    right = f"sha256:{hashlib.sha256(blocklist.read_bytes()).hexdigest()}"
    wrong = f"sha256:{'0' * 64}"
    tag = f"tag:{accept.tag}"
    file.write(
        {
            "a": blocking(place, blocklist, digest={"packet": right}),
            "b": at(place, id={"packet": accept.id}, digest={"packet": tag}),
        }
    )
    assert file.actions() == ["attach", "attach"]
    assert not file.differs()
    saved = ipttctl("save").stdout
    assert right in saved
    for link, found, wanted in (("a", right, wrong), ("b", tag, f"tag:{'0' * 16}")):
        text = file.path.read_text()
        file.path.write_text(text.replace(found, wanted))
        for command in ("diff", "apply"):
            done = ipttctl(command, str(file.path))
            assert done.returncode == 4
            assert done.stderr.startswith(f"ipttctl: {link}: slot packet: ")
            assert f"has the digest {found}, not {wanted}" in done.stderr
        file.path.write_text(text)
    given = ("--hook", "nf:inet4/output", "--netns", place.name, "--id", f"packet={accept.id}")
    assert ipttctl("attach", *given, "--digest", f"packet=tag:{'0' * 16}").returncode == 4
    assert len(links()) == 2


@pytest.mark.parametrize("canary", [False, True], ids=["for good", "canary"])
def test_killed_at_every_step(
    canary: bool, place: Namespace, file: File, blocklist: Path, tmp_path: Path
) -> None:
    """Killed there, it leaves one of two states, or one that the same command completes.

    Two links change in one transaction, one is new, one goes, one moves; a map is filled. A process
    is killed before its first change, its second and so on, until it makes no more.
    """
    current = tmp_path / "current.o"
    version = blocklist.read_bytes()
    terms = Terms(owner="web", rollback_after=3600.0 if canary else None)
    confirming = Terms(owner="web", confirm=True)
    one = blocking(place, current)

    def old() -> None:
        current.write_bytes(version)
        file.write({"a": one, "b": one, "goes": one, "moves": one})
        applied(file.state(), Terms(owner="web"))

    def new() -> None:
        current.write_bytes(version + bytes(16))
        moved = one | {"hook": "nf:inet4/input"}
        file.write(
            {"a": one | {"maps": {"blocked4": ["127.9.0.0/16"]}}, "b": one, "new": one}
            | {"moves": moved}
        )

    def check(names: set[str]) -> None:
        """All of it is there, and a second time there is nothing to do."""
        assert applied(file.state(), terms) == []
        found = links()
        assert {link.name for link in found.values() if link.name} == names
        assert {link.labels.get(OWNER_LABEL) for link in found.values()} == {"web"}

    seen: list[str] = []
    for phase in ("apply", "confirm") if canary else ("apply",):
        for number in range(60):
            old()
            before = {link.name: link for link in links().values()}
            assert before.keys() == {"a", "b", "goes", "moves"}
            new()
            if phase == "confirm":
                applied(file.state(), terms)
            name = killed_before(number, file, confirming if phase == "confirm" else terms)
            found = links()
            # together: both are old, or both new
            together = {
                found[before[name].id].generation - before[name].generation for name in "ab"
            }
            assert together in ({0}, {1}), (phase, number, name)
            gone = {before["goes"].id, before["moves"].id} - found.keys()
            assert not gone or not found[before["a"].id].waits
            applied(file.state(), terms)
            if canary:
                if phase == "apply":
                    check({"a", "b", "goes", "moves", "new"})
                applied(file.state(), confirming)
            check({"a", "b", "new", "moves"})
            now = links()
            assert len(now) == 4
            # none was made twice, or swapped twice
            assert {now[before[name].id].generation for name in "ab"} == {
                before["a"].generation + 1
            }
            if name is None:
                break
            seen.append(name)
        else:
            pytest.fail("it does not end")
    wanted = ["update", "attach", "transact", "write", "detach", "rename"]
    assert set(wanted + (["confirm"] if canary else [])) <= set(seen)
    file.write({})
    applied(file.state(), terms)
    wait_for(lambda: links() == {}, timeout=COMMAND_TIMEOUT, what="the links go")
