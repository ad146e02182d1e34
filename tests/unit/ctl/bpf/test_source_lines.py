# SPDX-License-Identifier: GPL-2.0
"""Messages about faulty sources, and the end of a compilation, with real compilers."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipttctl.bpf import bpfcc
from ipttctl.bpf.source_lines import line_of
from ipttctl.bpf.specs import CollectionSpec
from ipttctl.bpf.verifier_log import refused_instruction, refused_line
from ipttctl.errors import ProgramError, VerifierError
from ipttctl.programs import sources
from tests.unit.ctl.bpf.test_compiling import kernel, write

__all__ = ["kernel"]

pytestmark = pytest.mark.usefixtures("kernel")

SOURCE = """\
#include "inline.h"

BPF_HASH(seen, u32, u64);

int other(void *context)
{
	return 1;
}

int entry(struct pt_regs *context)
{
	u32 key = 0;
	u64 *found = seen.lookup(&key);

	key = twice(key);
	/* a comment {
	with statements in it;
	*/
	return *found
		+ 1;
}
"""
INLINE = """
struct pt_regs { unsigned long di; };
static inline u32 twice(u32 x)
{
	return x * 2;
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write(tmp_path / "drop.c", SOURCE)
    write(tmp_path / "inline.h", INLINE)
    return tmp_path / "drop.c"


def dereferenced(source: Path) -> int:
    """The first instruction that reads a u64 through the register with a call's result."""
    code = CollectionSpec.from_source(source, use_cache=False).programs["entry"].instructions
    words = [code[at : at + 8] for at in range(0, len(code), 8)]
    call = next(at for at, word in enumerate(words) if word[0] == 0x85)
    return next(at for at, word in enumerate(words) if at > call and word[0] in {0x61, 0x79})


@pytest.mark.parametrize("lines_more", [0, 40])
def test_instructions_have_lines(source: Path, lines_more: int) -> None:
    source.write_text("\n" * lines_more + SOURCE)
    line = line_of(source, [], "entry", dereferenced(source))
    assert line
    assert (line.number, line.text) == (19 + lines_more, "return *found")
    other = line_of(source, [], "other", 0)
    assert other
    assert other.text == "return 1;"


MACRO = "#define GET(v) \\\nget(v) { return *v; }\n"
CALLER = """
int entry(void *c)
{
	u32 key = 0;
	return get(seen.lookup(&key));
}
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"static inline u64 get(u64 *v) {{ return *v; }}{CALLER}", 2),
        (f"{MACRO}static inline u64\nget(u64 *v) {{ /* its */ return *v; }}{CALLER}", 5),
        ("int entry(void *c) { u32 key = 0; u64 *v = seen.lookup(&key); return *v; }\n", 2),
    ],
    ids=["inlined", "on two lines", "all on one"],
)
def test_a_function_on_one_line_has_that_line(source: Path, text: str, line: int) -> None:
    source.write_text(f"BPF_HASH(seen, u32, u64);\n{text}")
    found = line_of(source, [], "entry", dereferenced(source))
    assert found
    assert found.number == line
    assert found.text == source.read_text().splitlines()[line - 1]


def test_nothing_is_guessed(source: Path) -> None:
    assert line_of(source, [], "no_such_program", 0) is None
    assert line_of(source.with_name("gone.c"), [], "entry", 0) is None
    source.write_text("int entry(void *context) { broken }")
    assert line_of(source, [], "entry", 0) is None


def test_a_refusal_names_the_line_of_the_source(source: Path) -> None:
    log = (
        "5: (85) call bpf_map_lookup_elem#1\n9: (79) r0 = *(u64 *)(r0 +0)\nR0 invalid mem access\n"
    )
    assert refused_instruction(log) == 9
    refusal = VerifierError("entry", "R0 invalid mem access", dereferenced(source), "change it")
    said = sources._in_source(str(source), refusal)
    assert str(said) == (
        f"{source}:19: the kernel's verifier refuses program entry: R0 invalid mem access; "
        "the line is `return *found`"
    )


def test_logs_of_objects_have_lines_in_them() -> None:
    log = "0: R1=ctx() R10=fp0\n; return *found @ drop.c:16\n9: (79) r0 = *(u64 *)(r0 +0)\nR0 no\n"
    assert refused_line(log) == "return *found @ drop.c:16"
    assert refused_line("0: (95) exit\nR0 !read_ok\n") == ""
    assert refused_instruction("") is None


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("int entry(void *c)\n{\n\treturn nowhere(1);\n}", 3, "nowhere"),
        ("int nowhere(int x);\n\nint entry(void *c) { return nowhere(1); }", 3, "non-static"),
        ("int entry(void *c)\n{\n\treturn 1\n}", 3, "expected ';'"),
        ('\n#include "missing.h"\n', 2, "'missing.h' file not found"),
    ],
)
def test_what_does_not_compile_has_its_line(
    source: Path, text: str, line: int, reason: str
) -> None:
    source.write_text(text)
    with pytest.raises(ProgramError) as raised:
        CollectionSpec.from_source(source, use_cache=False)
    assert re.search(rf"drop\.c:{line}:\d+: .*error: .*{reason}", str(raised.value)), raised.value


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_the_compiler_ends_with_who_asked(source: Path, number: int) -> None:
    pipe = source.with_name("endless.h")
    os.mkfifo(pipe)
    ask = (
        "from pathlib import Path; from ipttctl.bpf import bpfcc\n"
        f"bpfcc.compile_source(Path('x.c'), b'#include \"{pipe}\"', [])"
    )
    with subprocess.Popen([sys.executable, "-c", ask], stderr=subprocess.DEVNULL) as asking:
        writer = _reading(pipe, asking)
        asking.send_signal(number)
        poll = select.poll()
        poll.register(writer, 0)
        # the reader has ended
        assert poll.poll(60_000) == [(writer, select.POLLERR)]
        assert asking.wait(60) != 0
    os.close(writer)


def _reading(pipe: Path, process: subprocess.Popen[bytes]) -> int:
    """The writing end of a pipe, once a process reads from it."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert process.poll() is None
            time.sleep(0.02)
    pytest.fail("nobody reads")


def test_the_program_that_is_missing_is_named(source: Path) -> None:
    spec = CollectionSpec.from_source(source, use_cache=False)
    with pytest.raises(ProgramError, match="there is no program nope; there are: entry, other"):
        spec.find_program("nope")
    assert bpfcc.version()
