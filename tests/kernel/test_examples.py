# SPDX-License-Identifier: GPL-2.0
"""The examples of docs/examples work as described."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

import ipttctl
from ipttctl import (
    Controller,
    Link,
    NamespaceNames,
    NfHook,
    NfMode,
    PayloadTypes,
    ProgramChoice,
    ProgramSet,
    Slot,
    decode_events,
    event_object,
    map_of,
    parse_source,
)
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl as run_ipttctl
from tests.kernel.support.kernel import (
    COMMAND_TIMEOUT,
    load_module,
    settled,
    unload_module,
    wait_for,
)
from tests.kernel.support.network import Namespace, event, flood_udp, namespace, send_udp
from tests.kernel.support.nf import attach, socket_filter
from tests.kernel.support.objects import BPF, REPOSITORY, compile_object
from tests.kernel.support.sockets import waiting
from tests.ynl import ynl

EXAMPLES = REPOSITORY / "docs" / "examples"
TIMEOUT = 4 * COMMAND_TIMEOUT
#: for which new programs are watched: the example starts again in less time
CANARY_SECONDS = round(max(12, COMMAND_TIMEOUT / 5))

pytestmark = pytest.mark.usefixtures("no_links")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in C, compiled as its first lines say."""
    source = EXAMPLES / "client.c"
    made = tmp_path_factory.mktemp("client") / "client"
    line = re.search(r"\*\tcc (.*)", source.read_text())
    assert line
    options = run_ipttctl("cflags").stdout.split()
    included = shlex.join(option for option in options if option.startswith("-I"))
    words = re.sub(r"\$\(.*?\)", lambda _: included, line[1])
    words = words.replace("client.c", str(source)).replace("-o client", f"-o {made}")
    subprocess.run(["cc", "-Werror", *shlex.split(words)], check=True, timeout=COMMAND_TIMEOUT)
    return made


@pytest.fixture
def pins(make_program: MakeProgram) -> Iterator[tuple[Path, Path]]:
    """Two pinned programs: an event for each packet, and none."""
    paths = Path("/sys/fs/bpf/all"), Path("/sys/fs/bpf/none")
    for path, code in zip(paths, (asm.returning(1), asm.returning(0)), strict=True):
        socket_filter(make_program, code, path.name).pin(path)
    yield paths
    for path in paths:
        path.unlink()


def run(client: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [client, *words], capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
    )


def output(client: Path, *words: str | Path) -> str:
    done = run(client, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_client_in_c(client: Path, pins: tuple[Path, Path], controller: Controller) -> None:
    everything, nothing = pins
    made = output(client, "attach", everything)
    [link] = controller.links()
    assert made.startswith(f"link {link.id} generation 1 slot 4 program ")
    assert link.persistent
    assert str(link.hook) == "nf:inet4/output@filter"
    assert output(client, "links") == made

    swapped = output(client, "swap", str(link.id), nothing)
    assert f"link {link.id} generation 2" in swapped
    assert "(none)" in swapped
    assert controller.link(link.id).generation == 2

    assert f"link {link.id} " in output(client, "detach", str(link.id))
    assert controller.links() == []
    assert output(client, "links") == ""


def test_a_client_in_c_is_told_the_events(
    client: Path, pins: tuple[Path, Path], controller: Controller
) -> None:
    output(client, "attach", pins[0])
    [link] = controller.links()
    with subprocess.Popen([client, "events", "2"], stdout=subprocess.PIPE, text=True) as observer:
        assert observer.stdout
        assert observer.stdout.readline() == "listening\n"
        subprocess.run(
            ["ping", "-c", "2", "-i", "0.2", "127.0.0.1"], check=True, stdout=subprocess.DEVNULL
        )
        seen = observer.stdout.read().splitlines()
        assert observer.wait(COMMAND_TIMEOUT) == 0
    assert len(seen) == 2
    for line in seen:
        assert f"link {link.id} 127.0.0.1 -> 127.0.0.1 protocol 1 verdict 1" in line


def test_a_client_in_c_hears_why_it_is_refused(client: Path, make_program: MakeProgram) -> None:
    refused = run(client, "detach", "4711")
    assert refused.returncode == 1
    assert refused.stderr == "client: detach: there is no such link\n"
    kprobe = Path("/sys/fs/bpf/kprobe")
    make_program(name="kprobe").pin(kprobe)
    try:
        refused = run(client, "attach", kprobe)
    finally:
        kprobe.unlink()
    assert refused.returncode == 1
    assert re.fullmatch(r"client: attach: .*socket filter.*\n", refused.stderr), refused.stderr


@pytest.fixture
def search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs find our interpreter as ``python3``, our library, and ``ipttctl``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "ipttctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ipttctl "$@"\n')
    program.chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))


@pytest.fixture(scope="module")
def limit_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_object(BPF / "limit.c", tmp_path_factory.mktemp("limit"))


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("examples") as made:
        yield made


def started(name: str, *words: object) -> subprocess.Popen[str]:
    """An example of ours, run by its name."""
    return subprocess.Popen(
        [str(EXAMPLES / name), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    """The status of an example, the lines that it prints, and its complaint."""
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out.splitlines(), err


def counted(link: Link) -> int:
    """The packets that the limiter counted for 127.0.0.1."""
    with map_of(link, "counts") as counts:
        found = counts.get("127.0.0.1")
        return found["passed"] + found["dropped"] if found else 0


@pytest.mark.usefixtures("search_path")
def test_an_orchestrator_keeps_good_programs_and_no_bad_ones(
    controller: Controller, place: Namespace, limit_object: Path
) -> None:
    """It is killed while a canary is under way, and started again."""
    program = f"{limit_object}:limit"
    choice = ProgramChoice({Slot.PACKET: parse_source("object", program)})
    with choice.open() as programs:
        links = [
            controller.attach(
                NfHook.parse(f"nf:inet4/{hook}", netns=place.path, mode=NfMode.FILTER),
                programs,
                persistent=True,
                name=f"edge-{hook}",
                labels={"fleet": "edge", "team": "core"},
            )
            for hook in ("output", "input")
        ]

    def orchestrate(*constants: str) -> subprocess.Popen[str]:
        return started("orchestrator.py", "edge", program, CANARY_SECONDS, *constants)

    def now() -> list[Link]:
        return [controller.link(link.id) for link in links]

    stop = event()
    # slowly: the examples take time
    flood = place.start(flood_udp, "127.0.0.1", 9, stop, 0.05, 5)
    try:
        good = "default_limit=1000000"
        first = orchestrate(good)
        wait_for(lambda: {one.generation for one in now()} == {2}, timeout=TIMEOUT)
        first.kill()
        ended(first)
        assert all(one.rollback_in for one in now())
        assert ended(orchestrate(good)) == (
            0, ["going on with the canary of 2 links", "confirmed 2 links"], "",
        )  # fmt: skip  # pairs together
        assert ended(orchestrate(good)) == (0, ["all 2 links have this version"], "")
        assert [(one.generation, one.rollback_in) for one in now()] == [(2, None)] * 2
        [version] = {one.labels["version"] for one in now()}
        assert {one.labels["team"] for one in now()} == {"core"}
        before = [counted(one) for one in now()]
        assert all(before)

        status, lines, err = ended(orchestrate("default_limit=1", "period=1000"))
        assert (status, lines[0], err) == (1, "swapped 2 links", "")
        assert re.fullmatch(
            r"link edge-output dropped \d+ in \d+ s: the module swaps back", lines[1]
        )
        assert [one.generation for one in now()] == [4, 4]
        assert {one.labels["version"] for one in now()} == {version}
        # the maps were the same all the time
        assert all(counted(one) > count for one, count in zip(now(), before, strict=True))
    finally:
        stop.set()
        flood.join()
    assert ended(started("orchestrator.py", "none", program, 1)) == (
        2, [], "orchestrator.py: no link has the label fleet=none\n",
    )  # fmt: skip  # pairs together


@pytest.mark.usefixtures("search_path")
def test_a_limiter_keeps_limits_and_counts(
    controller: Controller, place: Namespace, limit_object: Path
) -> None:
    def limiter(*words: object) -> tuple[int, list[str], str]:
        return ended(started("limiter.py", *words))

    def flood() -> None:
        place.run("ping", "-q", "-f", "-c", "30", "127.0.0.1", check=False)

    assert limiter("show")[0] == 6
    hook = "nf:inet4/output"
    status, [line], err = limiter("install", hook, limit_object, "--netns", place.path)
    [link] = controller.links()
    assert (status, line, err) == (0, f"attached limiter: link {link.id} at {hook}@filter", "")
    flood()
    assert limiter("show") == (0, ["127.0.0.1 - 60 0"], "")
    assert limiter("set", "127.0.0.1", "3") == (0, [], "")
    flood()
    status, [line], _ = limiter("show")
    address, limit, passed, dropped = line.split()
    assert (address, limit) == ("127.0.0.1", "3")
    assert int(passed) > 60
    assert int(dropped) > 0

    # a limit for all others: the program is another, its maps are the same
    assert limiter("install", hook, limit_object, "--default", 1000000) == (
        0, ["swapped limiter: generation 2"], "",
    )  # fmt: skip  # pairs together
    assert limiter("show") == (0, [line], "")
    assert limiter("unset", "127.0.0.1") == (0, [], "")
    flood()
    assert limiter("show") == (0, [f"127.0.0.1 - {int(passed) + 60} {dropped}"], "")
    assert limiter("unset", "127.0.0.1") == (
        2, [], "limiter.py: 127.0.0.1 has no limit of its own\n",
    )  # fmt: skip  # pairs together


def objects(file: IO[str], count: int) -> list[Any]:
    return [json.loads(file.readline()) for _ in range(count)]


@pytest.mark.usefixtures("search_path")
def test_an_observer_decodes_payloads_and_tells_losses(
    controller: Controller, place: Namespace, make_program: MakeProgram, tmp_path: Path
) -> None:
    source = (EXAMPLES / "sizes.c").read_text()
    (tmp_path / "sizes.c").write_text(source)
    line = re.search(r"\*\t(clang .*)", source)
    assert line
    subprocess.run(["sh", "-c", line[1]], cwd=tmp_path, check=True, timeout=TIMEOUT)
    sizes = parse_source("object", f"{tmp_path}/sizes.o:sizes")
    choice = ProgramChoice({Slot.PACKET: sizes}, payload="sizes_seen")
    hook = NfHook.parse("nf:inet4/output", netns=place.path)
    with choice.open() as programs:
        link = controller.attach(hook, programs, persistent=True, name="sizes")
    plain = socket_filter(make_program, asm.returning(1))
    other = attach(controller, plain, "nf:inet4/output@1", place)

    observer = started("observer.py", "sizes")
    assert observer.stdout
    [listed] = objects(observer.stdout, 1)
    assert (listed["change"], [one["name"] for one in listed["links"]]) == ("list", ["sizes", None])
    with controller.events() as own:
        place.call(send_udp, "127.0.0.1", 9, [b"x" * size for size in (10, 30, 20)])
        types = PayloadTypes(controller.link)
        records = [one for batch in own.drain() for one in decode_events(batch, {link.id})]
        shown = objects(observer.stdout, len(records))
    assert shown == [event_object(one, NamespaceNames(), types.value) for one in records]
    # nobody listens, so that there are answers too
    assert [one["length"] for one in shown if one["destination_port"] == 9] == [38, 58, 48]
    sums = {one["cpu"]: 0 for one in shown}
    for one in shown:
        sums[one["cpu"]] += one["length"]
        assert one["payload_value"]["this"] == one["length"]
        assert one["payload_value"]["total"] == sums[one["cpu"]]
    controller.swap("sizes", ProgramSet({Slot.PACKET: plain.fd}), reason="no sizes", wait=True)
    [swapped] = objects(observer.stdout, 1)
    assert (swapped["change"], swapped["reason_text"]) == ("swapped", "no sizes")
    place.call(send_udp, "127.0.0.1", 9, [b"x"])
    [last] = objects(observer.stdout, 1)
    assert (last["link"], last["generation"], last["payload"]) == (link.id, 2, None)
    observer.send_signal(signal.SIGINT)
    status, rest, err = ended(observer)
    assert (status, err) == (0, "lost 0\n")
    assert {json.loads(line)["generation"] for line in rest} <= {2}

    # all links, and the end of the module; events are lost if it is too slow, and told
    everything = started("observer.py")
    assert everything.stdout
    objects(everything.stdout, 1)

    def count() -> int:
        return sum(one.stats.events for one in controller.links())

    before = count()
    place.call(send_udp, "127.0.0.1", 9, [b"x"] * 500)
    emitted = settled(count) - before
    everything.send_signal(signal.SIGTERM)
    status, lines, err = ended(everything)
    assert status == 0
    lost = re.fullmatch(r"(?:lost so far: .*\n)*lost (\d+)\n", err)
    assert lost
    assert len(lines) + int(lost[1]) == emitted >= 1000

    deaf = started("observer.py")
    assert deaf.stdout
    objects(deaf.stdout, 1)
    for one in (link, other):
        controller.detach(one.id)
    unload_module()
    try:
        status, _, err = ended(deaf)
    finally:
        load_module()
    assert status == 3
    assert "the ipttrace module was unloaded" in err


def command_of(process: Path) -> bytes:
    """The command line of a process, if it is still there."""
    with suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


def test_a_monitor_in_shell(
    controller: Controller,
    place: Namespace,
    make_program: MakeProgram,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client is the kernel's, and the spec the one that the package installs."""
    monkeypatch.setenv("YNL", f"/usr/bin/python3 {ynl().cli} --no-schema")
    monkeypatch.setenv("SPEC", str(Path(ipttctl.__file__).with_name("sources") / "ipttrace.yaml"))

    def monitor(*words: object) -> tuple[int, list[str], str]:
        return ended(started("monitor", *words))

    assert monitor("links") == (0, [], "")
    program = socket_filter(make_program, asm.returning(1))
    hook = NfHook.parse("nf:inet4/output", netns=place.path)
    programs = ProgramSet({Slot.PACKET: program.fd})
    link = controller.attach(hook, programs, name="web", reason="a test")
    other = attach(controller, program, "nf:inet4/output@1", place)
    place.ping("127.0.0.1")
    assert monitor("links") == (
        0, [f"{link.id} web 1 2 2 0", f"{other.id} - 1 2 2 0"], "",
    )  # fmt: skip  # pairs together
    status, [version, *cpus], _ = monitor("stats")
    assert status == 0
    assert version == controller.status().version
    assert [int(line.split()[0]) for line in cpus] == [c.cpu for c in controller.status().cpus]

    controller.swap("web", programs, rollback_after=3600)
    me = Path("/proc/self/comm").read_text().strip()
    assert monitor("history", "web") == (0, [f"1 attach {me} a test", f"2 swap {me} -"], "")
    status, lines, err = monitor("confirm", "web", 1)
    assert (status, lines) == (1, [])
    assert re.fullmatch(r"monitor: .*generation.*\n", err), err
    assert controller.link("web").rollback_in
    assert monitor("confirm", "web", 2) == (0, [f"{link.id} 2"], "")
    assert controller.link("web").rollback_in is None
    assert monitor("rename", link.id, "edge") == (0, [f"{link.id} edge"], "")

    watching = started("monitor", "watch", 20)
    names = (f"n{number}" for number in itertools.count())

    def heard() -> bool:
        controller.rename(other.id, next(names))
        processes = Path("/proc").glob("[0-9]*")
        clients = (int(one.name) for one in processes if b"--subscribe" in command_of(one))
        return any(map(waiting, clients))

    wait_for(heard, timeout=COMMAND_TIMEOUT, what="the client listens")
    assert monitor("detach", "edge", 'it is "done"') == (0, [f"{link.id} 2"], "")
    status, lines, err = ended(watching)
    assert (status, err) == (0, "")
    assert f'link-detached {link.id} edge 2 it is "done"' in lines
    assert [one.id for one in controller.links()] == [other.id]
    assert monitor("detach", "edge") == (1, [], "monitor: there is no such link\n")
    for words in ((), ("detach",), ("detach", 'a"b'), ("confirm", "web", "x")):
        assert monitor(*words)[0] == 2
