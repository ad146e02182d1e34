# SPDX-License-Identifier: GPL-2.0
"""The examples of docs/examples work as described."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttctl.link.controller import Controller
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import COMMAND_TIMEOUT
from tests.kernel.support.nf import socket_filter
from tests.kernel.support.objects import REPOSITORY

EXAMPLES = REPOSITORY / "docs" / "examples"

pytestmark = pytest.mark.usefixtures("no_links")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in C, compiled as its first lines say."""
    source = EXAMPLES / "client.c"
    made = tmp_path_factory.mktemp("client") / "client"
    line = re.search(r"\*\tcc (.*)", source.read_text())
    assert line
    options = ipttctl("cflags").stdout.split()
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
