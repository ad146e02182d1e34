# SPDX-License-Identifier: GPL-2.0
"""The command lines of the documents do what they say, as they are printed.

Those of ``ipttctl`` run with a module in user space, which has a link 3. Where one needs more than
that, the table below says what, and that this is all that it lacks. Guests run them too, in the
tests of what they are about.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ipttctl.bpf.collection import CollectionSpec
from ipttctl.programs.cflags import cflags
from ipttctl.recordings.writer import LEAST_SIZE, VERSION, RecordingWriter
from tests.command_lines import Outcome
from tests.command_lines.printed import DOCUMENTS, REPOSITORY, Line, of_compilers, of_ipttctl
from tests.kernel.support.cli import Forked, Server

#: what is printed and is no command line -> why
NOT_A_LINE = {
    r"ipttctl trace \[OPTIONS\] \[FILTER\]": "a synopsis",
    r" {4,}-?\d+$": "a row of a table of costs",
}
#: lines that cannot be run here -> why
NOT_HERE = {
    r"ipttctl module verify": "minutes of a real kernel; the differential tests run it",
    r"ipttctl module build": "headers of a kernel; the tests of installation run it",
    r"apply --watch": "it does not end; tests of guests run it",
    r"ipttctl export ": "it writes where it is run; tests of tables run it",
    r"ipttctl (trace|record|doctor)( |$)": "it looks at the running kernel; tests of guests do",
}
#: lines that lack something here -> exit status, what is missing, why
LACKING = {
    r"--pinned": (4, "/sys/fs/bpf|process 4711", "nothing is pinned on this host"),
    r"--id": (4, "no BPF program with id|CAP_SYS_ADMIN", "no program of this id is loaded"),
    r"--source packet=limit": (4, "limit.c: No such file", "the source is in a checkout"),
    r"--object ": (4, r"\.o: No such file|process 4711", "loading it takes a kernel's privileges"),
    r"--netns web": (2, "there is no network namespace 'web'", "namespaces are made in guests"),
    r"--plan plan": (2, "cannot read plan", "the line before it makes one"),
    r"--txn swaps": (4, r"new\.o: No such file", "the object file is an example"),
    r"(query|show) --hub": (2, "there is neither|cannot read hub.yaml", "there is no hub here"),
    r"agent --check": (2, "cannot read /etc/ipttctl/agent.yaml", "it is of the host"),
    r"fleet (hosts|status|undo)": (2, "there is neither .*/hub.yaml", "there is no hub here"),
    r"fleet (diff|apply) ": (2, "--sign: cannot read signer.nk", "a key is somebody's own"),
    r"module load": (3, "there is no module for kernel", "none is built for the kernel here"),
    r"module upgrade": (3, "the ipttrace module is not loaded", "none is in the kernel here"),
    r"module unload": (3, "the ipttrace module is not loaded", "none is in the kernel here"),
    r"map (set|get|dump|delete|copy) ": (
        4,
        "link 3 has no map",
        "maps are of programs that are loaded",
    ),
}
FDS = (5, 6, 7, 8)


def known(table: Iterable[str], line: Line) -> str | None:
    return next((pattern for pattern in table if re.search(pattern, line.text)), None)


LINES = [line for line in of_ipttctl() if not known(NOT_A_LINE, line)]
HERE = [line for line in LINES if not known(NOT_HERE, line)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server("tests.command_lines.server")
    yield started
    started.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that the lines name."""
    made = tmp_path_factory.mktemp("printed")
    for name in ("router", "web", "dns"):
        (made / f"{name}.yaml").write_text("links: {}\n")
    begin = {"version": VERSION, "stories": True, "links": [], "patience_ns": 1}
    with RecordingWriter(made / "web.ipr", "web", "boot", LEAST_SIZE, replace=False) as recording:
        recording.note({"about": "recording", **begin})
        recording.note({"about": "netns", "cookie": 7, "moment": 0, "name": "web"})
        recording.end({"about": "end"})
    control = (REPOSITORY / "docs" / "control.md").read_text()
    found = re.search(r"```yaml\n(- link: 3\n.*?)```", control, re.DOTALL)
    assert found
    (made / "swaps.yaml").write_text(found[1])
    return made


def ran(server: Server, line: Line, place: Path) -> Outcome:
    """Run a line to its end, with descriptors 5 to 8 open, as its caller would have left them."""
    out, err = place / "out", place / "err"
    with (
        Path(os.devnull).open("rb") as nothing,
        out.open("w") as stdout,
        err.open("w") as stderr,
    ):
        fds = {0: nothing.fileno(), 1: stdout.fileno(), 2: stderr.fileno()}
        fds |= dict.fromkeys(FDS, nothing.fileno())
        words = [str(place / word) if (place / word).is_file() else word for word in line.words[1:]]
        command = Forked(server, ["0", *words], fds)
        try:
            status = command.wait(60)
        except subprocess.TimeoutExpired:
            command.kill()
            raise
    return Outcome(status, out.read_text(), err.read_text())


@pytest.mark.parametrize("line", HERE, ids=str)
def test_a_line_does_what_it_says(server: Server, line: Line, place: Path) -> None:
    outcome = ran(server, line, place)
    pattern = known(LACKING, line)
    if outcome.status and pattern:
        status, words, _ = LACKING[pattern]
        assert outcome.status == status, outcome
        assert re.search(f"^ipttctl: .*({words})", outcome.err, re.MULTILINE), outcome
    else:
        assert outcome.status == 0, outcome


def test_each_exception_is_of_a_line() -> None:
    for table in (NOT_A_LINE, NOT_HERE, LACKING):
        for pattern in table:
            assert any(re.search(pattern, line.text) for line in of_ipttctl()), pattern


def test_the_lines_are_found() -> None:
    files = {line.file for line in LINES}
    assert len(LINES) > 40
    assert {"README.md", "control.md", "programs.md", "state.md"} <= {file.name for file in files}
    # and no document prints one in a way that is not found
    printed = sum(
        len(re.findall(r"^ {4,}(?:\$ )?ipttctl(?: |$)", document.read_text(), re.MULTILINE))
        for document in DOCUMENTS
    )
    assert printed == len(of_ipttctl())


@pytest.mark.parametrize("name", ["count", "blocklist", "limit", "functions"])
def test_the_programs_that_lines_name_are_there(name: str, tmp_path: Path) -> None:
    made = tmp_path / f"{name}.o"
    source = REPOSITORY / "bpf" / f"{name}.c"
    subprocess.run(["clang", *cflags(), "-c", str(source), "-o", str(made)], check=True)
    spec = CollectionSpec.from_object(made)
    text = " ".join(document.read_text() for document in DOCUMENTS)
    named = set(re.findall(rf"\b{name}\.[oc]:(\w+)", text))
    assert named
    for program in named:
        assert spec.find_program(program) == program


def test_the_lines_of_compilers_make_programs(tmp_path: Path) -> None:
    """In order, by a shell, in a directory with what a checkout has and the example beside."""
    for name in ("bpf", "kmod_netlink"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "bpf" / "count.c", tmp_path)
    program = tmp_path / "bin" / "ipttctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ipttctl "$@"\n')
    program.chmod(0o755)
    lines = of_compilers()
    assert len(lines) >= 4
    search = f"{program.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "PYTHONPATH": ":".join(sys.path)}
    for line in lines:
        done = subprocess.run(
            line.text,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), line
    assert (tmp_path / "count.o").stat().st_size > 1000


@pytest.mark.parametrize("name", ["count.c", "blocklist.c", "limit.c", "functions.c"])
@pytest.mark.parametrize("types", ["", '#include "vmlinux.h"\n'])
def test_the_examples_compile_with_the_kernels_types_and_without(
    name: str, types: str, tmp_path: Path
) -> None:
    """The headers redefine nothing that vmlinux.h has."""
    if types:
        dump = ("bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c")
        with (tmp_path / "vmlinux.h").open("w") as header:
            subprocess.run(dump, stdout=header, check=True)
    source = tmp_path / name
    source.write_text(types + (REPOSITORY / "bpf" / name).read_text())
    command = ["clang", *cflags(), "-Werror", "-c", str(source), "-o", str(tmp_path / "made.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
