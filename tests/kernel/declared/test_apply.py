# SPDX-License-Identifier: GPL-2.0
"""apply, diff and save: the machine becomes what a file declares, or stays as it was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ipttctl import Map
from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.bpf.specs import MapSpec
from ipttctl.link.controller import Controller
from ipttctl.programs.maps import map_of
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import IPTTCTL, ipttctl, running
from tests.kernel.support.declared import File, arrives, at, blocking, contents, links
from tests.kernel.support.kernel import COMMAND_TIMEOUT, load_module, unload_module, wait_for
from tests.kernel.support.network import Namespace
from tests.kernel.support.nf import socket_filter
from tests.kernel.support.objects import compile_object

PINS = Path("/sys/fs/bpf/test-apply")
HASH = 1

pytestmark = pytest.mark.usefixtures("no_links")


# --- purpose --------------------------------------------------------------------------------------


def test_a_file_becomes_what_is_and_stays_so(
    place: Namespace, file: File, accept: Program, other: Program, blocklist: Path
) -> None:
    wanted = {
        "guard": blocking(place, blocklist, maps={"blocked4": ["127.1.0.0/16"]}),
        "seen": at(place, hook="nf:inet4/input@raw", id={"packet": accept.id}, filter="icmp"),
    }
    file.write(wanted)
    assert file.differs()
    assert links() == {}
    assert file.actions() == ["set", "attach", "attach"]
    guard, seen = links().values()
    assert (guard.persistent, seen.persistent) == (True, True)
    assert arrives(place, "127.0.0.1")
    assert not arrives(place, "127.1.0.1")

    # the packet counts in the map do not matter, nor does a repeated declaration
    assert not file.differs()
    assert file.apply() == []
    assert contents() == [
        (link.id, 1, [p.id for p in link.programs.values()]) for link in (guard, seen)
    ]

    # only changes are applied: in a map without a swap, in programs with a swap
    wanted["guard"]["maps"] = {"blocked4": ["127.2.0.0/16"]}
    wanted["seen"] |= {"id": {"packet": other.id}}
    file.write(wanted)
    steps = file.apply()
    assert [(s["action"], s["name"], s["link"]) for s in steps] == [
        ("set", "guard", guard.id),
        ("delete", "guard", guard.id),
        ("swap", "seen", seen.id),
    ]
    assert [link.generation for link in links().values()] == [1, 2]
    assert arrives(place, "127.1.0.1")
    assert not arrives(place, "127.2.0.1")
    wanted["seen"]["filter"] = "udp"
    file.write(wanted)
    assert file.actions() == ["swap"]

    # a map that is not declared is left alone
    del wanted["guard"]["maps"]
    file.write(wanted)
    assert file.apply() == []
    assert not arrives(place, "127.2.0.1")

    del wanted["guard"]
    file.write(wanted)
    assert file.actions() == ["detach"]
    assert list(links()) == [seen.id]


def test_an_object_file_that_changed_is_loaded_again(
    place: Namespace, file: File, blocklist: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.o"
    shutil.copy(blocklist, copy)
    file.write({"guard": blocking(place, copy)})
    assert file.actions() == ["attach"]
    copy.touch()
    assert not file.differs()
    # bytes after the sections change no program, but apply cannot know
    with copy.open("ab") as end:
        end.write(bytes(16))
    assert file.actions() == ["swap"]
    assert not file.differs()


def test_a_header_of_a_header_that_changed_is_compiled_again(
    place: Namespace, file: File, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "x.c").write_text('#include "lib/a.h"\nint x(void *packet) { return VALUE; }\n')
    (tmp_path / "lib" / "a.h").write_text('#include "b.h"\n')
    header = tmp_path / "lib" / "b.h"
    header.write_text("#define VALUE 1\n")
    file.write({"x": at(place, mode="filter", source={"packet": "x.c:x"})})
    assert file.actions() == ["attach"]
    assert arrives(place, "127.0.0.1")
    assert not file.differs()
    header.write_text("#define VALUE 0\n")
    assert file.differs()
    assert file.actions() == ["swap"]
    assert not arrives(place, "127.0.0.1")
    assert not file.differs()


def test_what_others_own_is_left_alone(place: Namespace, file: File, accept: Program) -> None:
    given = ("--hook", "nf:inet4/output", "--netns", place.name, "--id", f"packet={accept.id}")
    assert ipttctl("attach", "--persist", *given).returncode == 0
    with running("attach", *given) as owner:
        owner.wait_for_text("\n")
        theirs = list(links())
        file.write({"mine": at(place, id={"packet": accept.id})})
        (step,) = file.apply()
        assert (step["action"], step["link"] in theirs) == ("attach", False)
        # adopted by another owner: no second one beside it
        with running("adopt", str(step["link"])) as adopted:
            adopted.wait_for_text("\n")
            assert file.apply() == []
            assert not file.differs()
            told = ipttctl("apply", str(file.path)).stderr
            assert told.startswith(f"mine: link {step['link']} belongs to process ")
            file.write({})
            assert file.apply() == []
            assert [s["link"] for s in file.apply("--prune")] == theirs[:1]
            assert len(links()) == 2
            assert adopted.stop() == 0
        assert owner.stop() == 0
    assert links() == {}


def test_another_life_of_the_module(place: Namespace, file: File, accept: Program) -> None:
    """Ids begin again: the record of an old link must not be taken for a new one."""
    file.write({"mine": at(place, id={"packet": accept.id})})
    unload_module()
    load_module()
    (made,) = file.apply()
    assert ipttctl("detach", "--all").returncode == 0
    unload_module()
    load_module()
    given = ("--hook", "nf:inet4/output", "--netns", place.name, "--id", f"packet={accept.id}")
    assert ipttctl("attach", "--persist", *given).returncode == 0
    file.write({})
    assert file.apply() == []
    assert list(links()) == [made["link"]]


# --- a failure ------------------------------------------------------------------------------------


def test_a_failure_half_way_leaves_what_was_there(
    place: Namespace, file: File, accept: Program, other: Program, blocklist: Path,
    make_program: MakeProgram,
) -> None:  # fmt: skip  # pairs together
    wanted: dict[str, Any] = {
        "guard": blocking(place, blocklist, maps={"blocked4": ["127.1.0.0/16"]}),
        "seen": at(place, hook="nf:inet4/input@raw", id={"packet": accept.id}),
    }
    file.write(wanted)
    assert len(file.apply()) == 3
    before = contents()
    # all at once: a map changes, one link is attached, and one is swapped
    changed: dict[str, Any] = {
        "guard": wanted["guard"] | {"maps": {"blocked4": ["127.2.0.0/16"]}},
        "seen": wanted["seen"] | {"id": {"packet": other.id}},
        "new": at(place, id={"packet": other.id}),
    }

    def refused(status: int, sentence: str) -> None:
        done = ipttctl("apply", str(file.path))
        assert (done.returncode, done.stdout) == (status, ""), done
        assert sentence in done.stderr
        assert contents() == before
        assert arrives(place, "127.2.0.1")
        assert not arrives(place, "127.1.0.1")

    # a map that cannot be a payload: found when its link is attached, after another
    with Map.create(MapSpec("small", HASH, 4, 4, 2)) as small:
        code = asm.load_map(asm.R1, small.fd) + asm.returning(1)
        program = socket_filter(make_program, code, name="small")
    file.write({**changed, "wrong": at(place, id={"packet": program.id}, payload="small")})
    refused(1, "ipttctl: wrong: attaching: ")
    # a program that does not fit is found before anything is changed
    kprobe = make_program(name="kprobe")
    file.write({**changed, "wrong": at(place, id={"packet": kprobe.id})})
    refused(4, "wrong: the program for slot packet is of type kprobe")
    # a link that waits for a rollback is not swapped: found in the transaction
    swapped = ipttctl("swap", str(before[1][0]), "--id", f"packet={accept.id}",
                      "--rollback-after", "1h")  # fmt: skip  # pairs together
    assert swapped.returncode == 0, swapped.stderr
    before = contents()
    file.write(changed)
    refused(12, "[EINPROGRESS]")
    assert ipttctl("confirm", str(before[1][0])).returncode == 0
    # nothing is changed if a program is missing
    file.write({**changed, "none": at(place, object={"packet": "/no/such.o:x"})})
    refused(4, "none: cannot read BPF object /no/such.o")
    file.write(changed)
    assert sorted(file.actions()) == ["attach", "delete", "set", "swap"]
    assert not arrives(place, "127.2.0.1")
    file.write({})
    assert file.actions() == ["detach"] * 3


def test_a_map_that_is_full_gets_back_what_it_had(
    place: Namespace, file: File, make_program: MakeProgram
) -> None:
    spec = MapSpec("small", HASH, 4, 4, 2)
    with Map.create(spec) as small:
        code = asm.load_map(asm.R1, small.fd) + asm.returning(1)
        program = socket_filter(make_program, code, name="small")
        wanted = at(place, id={"packet": program.id}, maps={"small": {"1": 10, "2": 20}})
        file.write({"a": wanted})
        assert file.actions() == ["set", "set", "attach"]
        file.write({"a": wanted | {"maps": {"small": {"2": 21, "3": 30, "4": 40}}}})
        done = ipttctl("apply", str(file.path))
        assert done.returncode == 4, done
        assert done.stderr.startswith("ipttctl: a/small: ")
        assert dict(small.dump()) == {1: 10, 2: 20}
        file.write({"a": wanted | {"maps": {"small": {"4": 40}}}})
        assert sorted(file.actions()) == ["delete", "delete", "set"]
        assert dict(small.dump()) == {4: 40}


def limited(descriptors: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a limit of descriptors: soft and hard."""
    command = ["prlimit", f"--nofile={descriptors}", *IPTTCTL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_more_maps_than_descriptors(place: Namespace, file: File, tmp_path: Path) -> None:
    """Of the maps of 8 links with 12 maps each, all are compared and few are held open."""
    maps = "".join(
        f"struct {{ __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u32);"
        f' __uint(max_entries, 4); }} m{number} SEC(".maps");\n'
        for number in range(12)
    )
    uses = " + ".join(f"!!bpf_map_lookup_elem(&m{number}, &key)" for number in range(12))
    (tmp_path / "maps.c").write_text(
        f"#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n{maps}"
        f'SEC("socket") int maps(struct __sk_buff *packet) {{ __u32 key = 1; return {uses}; }}\n'
        'char terms[] SEC("license") = "GPL";\n'
    )
    built = compile_object(tmp_path / "maps.c", tmp_path)
    source = {"packet": f"{built}:maps"}

    def declare(value: int) -> None:
        holding = {f"m{number}": {"1": value} for number in range(12)}
        file.write({f"l{n}": at(place, object=source, maps=holding) for n in range(8)})

    declare(1)
    assert len(file.apply()) == 8 * 12 + 8
    # 96 maps, and the usual descriptors of a process
    declare(2)
    done = limited("140:140", "apply", str(file.path))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 8 * 12), done.stderr
    declare(3)
    done = limited("100:100", "apply", str(file.path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "all 100 descriptors are in use; raise `ulimit -n`" in done.stderr
    assert limited("100:140", "apply", str(file.path)).returncode == 0
    # nothing differs, so that nothing is held
    assert limited("60:60", "diff", str(file.path)).returncode == 0


def test_two_at_once_make_each_link_once(place: Namespace, file: File, accept: Program) -> None:
    file.write({f"l{n}": at(place, id={"packet": accept.id}) for n in range(4)})
    with ExitStack() as running_now:
        at_once = [running_now.enter_context(running("apply", str(file.path))) for _ in range(3)]
        for one in at_once:
            assert one.process.wait(COMMAND_TIMEOUT) == 0
    assert len(links()) == 4
    assert not file.differs()


def test_one_more_signal_does_not_end_the_undo(
    place: Namespace, file: File, make_program: MakeProgram
) -> None:
    # the signal must come while most of the work is left
    size, early = 6000, (300).to_bytes(4, "little")
    with Map.create(MapSpec("large", HASH, 4, 4, size)) as large:
        code = asm.load_map(asm.R1, large.fd) + asm.returning(1)
        program = socket_filter(make_program, code, name="large")
        wanted = at(place, id={"packet": program.id})
        old, new = ({str(key): value for key in range(size)} for value in (1, 2))
        file.write({"a": wanted | {"maps": {"large": old}}})
        file.apply()
        file.write({"a": wanted | {"maps": {"large": new}}})

        def value() -> int:
            return int.from_bytes(large.lookup(early) or b"", "little")

        with running("apply", str(file.path)) as command:
            wait_for(lambda: value() == 2, timeout=COMMAND_TIMEOUT, what="some is changed")
            command.process.send_signal(signal.SIGINT)
            wait_for(lambda: value() == 1, timeout=COMMAND_TIMEOUT, what="it is being undone")
            command.process.send_signal(signal.SIGINT)
            # the status of the undo, or the signal if the process was already done
            assert command.process.wait(COMMAND_TIMEOUT) in {130, -signal.SIGINT}
        assert {value for _, value in large.dump()} == {1}


# --- save -----------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_applied(
    place: Namespace, file: File, accept: Program, blocklist: Path, tmp_path: Path
) -> None:
    file.write({"guard": blocking(place, blocklist, maps={"blocked4": ["127.1.0.0/16"]})})
    assert file.actions() == ["set", "attach"]
    given = ("--netns", place.name, "--id", f"packet={accept.id}", "--persist")
    foreign = ipttctl("attach", "--hook", "nf:inet4/input@raw", *given, "--filter", "icmp",
                      "--cookie", "0x10")  # fmt: skip  # pairs together
    assert foreign.returncode == 0, foreign.stderr
    assert ipttctl("attach", "--hook", "nf:inet6/input", *given).returncode == 0
    with Controller() as controller:
        (guard, *_) = controller.links()
        with map_of(guard, "blocked4") as found:
            found.set("127.9.0.0/16", 3)
    before = contents()

    PINS.mkdir(mode=0o700)
    try:
        saved = ipttctl("save", "--pin", str(PINS))
        assert (saved.returncode, saved.stderr) == (0, "")
        again = File(tmp_path / "saved.yaml")
        again.path.write_text(saved.stdout)
        assert not again.differs()
        assert again.apply() == []
        assert contents() == before
        # maps that apply filled are always saved, in the same form
        everything = json.loads(ipttctl("save", "--maps", "-o", "json").stdout)["links"]
        assert {n: set(m) for n, m in everything["guard"]["maps"].items()} == {
            "blocked4": {"127.1.0.0/16", "127.9.0.0/16"},
            "blocked6": set(),
        }
        again.path.write_text(json.dumps({"links": everything}))
        assert again.apply() == []
        again.path.write_text(saved.stdout)

        # detached, and applied again
        assert ipttctl("detach", "--all").returncode == 0
        assert sorted(again.actions()) == ["attach"] * 3 + ["set"] * 2
        assert [ids for _, _, ids in contents()][1:] == [ids for _, _, ids in before][1:]
        assert not arrives(place, "127.9.0.1")
        with Controller() as controller:
            wholes = [controller.link(link) for link in links()]
        assert {(link.cookie, link.filter) for link in wholes} == {
            (0, None), (16, compile_filter("icmp")),
        }  # fmt: skip  # pairs together
        assert not again.differs()
        assert ipttctl("detach", "--all").returncode == 0
    finally:
        shutil.rmtree(PINS)
    wait_for(lambda: links() == {}, what="the links go")
