# SPDX-License-Identifier: GPL-2.0
"""Programs run with little; hostile ones, which cost a sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipttctl.bpf import tools
from ipttctl.rules import confine
from ipttctl.rules.confine import Bounds, ListingError
from tests.unit.ctl.rules.support import Net, script

SHORT = Bounds(seconds=1.0)

#: prints the state of the process as others see it
STATE = """
import os
print(open('/proc/self/status').read())
print('fds', sorted(os.listdir('/proc/self/fd')))
print('environment', sorted(os.environ))
print('namespace', os.stat('/proc/self/ns/net').st_ino)
print('mounts', os.stat('/proc/self/ns/mnt').st_ino)
print('directory', os.getcwd())
print(open('/proc/self/limits').read())
"""


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory whose programs are trusted here, beside those of the system."""
    system = confine.program

    def program(name: str) -> str:
        path = tmp_path / name
        return str(path) if path.exists() else system(name)

    monkeypatch.setattr(confine, "program", program)
    return tmp_path


@pytest.mark.parametrize("with_setpriv", [True, False])
def test_it_has_little(
    own: Path, net: Net, with_setpriv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_setpriv:
        monkeypatch.setattr(confine, "_until_we_end", list)
    script(own, "show", STATE)
    monkeypatch.setenv("SECRET", "x")
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        output = confine.run("show", [], net.fd).decode()
    finally:
        os.close(inherited)
    fields = dict(line.split(":", 1) for line in output.splitlines() if ":" in line)
    wanted = 1 << confine.CAP_NET_ADMIN
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) in {wanted, 0} if name == "CapAmb" else wanted
    assert int(fields["CapBnd"], 16) == wanted
    assert int(fields["CapEff"], 16) == wanted
    assert fields["NoNewPrivs"].strip() == "1"
    assert "fds ['0', '1', '2', '3']" in output  # 3 is the directory that it lists
    assert "environment ['LC_ALL']" in output
    assert f"namespace {os.fstat(net.fd).st_ino}" in output
    assert f"mounts {Path('/proc/self/ns/mnt').stat().st_ino}" in output
    assert "directory /\n" in output
    limits = [line.split() for line in output.splitlines() if line.startswith("Max ")]
    assert ["Max", "cpu", "time", "5", "5", "seconds"] in limits
    assert ["Max", "address", "space", str(1 << 30), str(1 << 30), "bytes"] in limits


def test_we_keep_what_we_have(own: Path, net: Net) -> None:
    script(own, "show", STATE)
    before = Path("/proc/thread-self/status").read_text()
    namespace = Path("/proc/thread-self/ns/net").stat().st_ino
    confine.run("show", [], net.fd)
    after = Path("/proc/thread-self/status").read_text()
    for name in ("CapEff", "CapBnd", "CapPrm", "NoNewPrivs"):
        assert [x for x in before.splitlines() if x.startswith(name)] == [
            x for x in after.splitlines() if x.startswith(name)
        ]
    assert Path("/proc/thread-self/ns/net").stat().st_ino == namespace


HOSTILE = {
    "fails": ("raise SystemExit(3)", "hostile fails with status 3"),
    "complains": ("import sys; sys.exit('no \\x1b such')", "status 1: no \x1b such"),
    "crashes": ("import os; os.kill(os.getpid(), 11)", "hostile is killed by SIGSEGV"),
    "hangs": ("import time; time.sleep(60)", "hostile takes too long"),
    "hangs without output": (
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "hostile takes too long",
    ),
    "ignores signals": (
        "import signal, time; [signal.signal(n, 1) for n in (1, 2, 15)]; time.sleep(60)",
        "hostile takes too long",
    ),
    "floods": ("while True: print('x' * 100000)", "hostile writes more than 1000000 bytes"),
    "leaves a child with its pipe": (
        "import os, time\nif os.fork() == 0: time.sleep(60)",
        "hostile takes too long",
    ),
    "takes memory": ("x = bytearray(1 << 31)", "hostile fails with status 1"),
    "computes": ("while True: pass", "hostile"),
    "stops": ("import os; os.kill(os.getpid(), 19)", "hostile takes too long"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_programs(what: str, own: Path, net: Net) -> None:
    body, sentence = HOSTILE[what]
    script(own, "hostile", body)
    # those that end by themselves may take their time on a busy machine
    seconds = 20.0 if " status " in sentence else 2.0
    begin = time.monotonic()
    with pytest.raises(ListingError) as raised:
        confine.run("hostile", [], net.fd, bounds=Bounds(seconds=seconds, output=1_000_000))
    assert str(raised.value).startswith(sentence) or sentence in str(raised.value)
    assert time.monotonic() - begin < seconds + 6


def test_a_flood_of_complaints(own: Path, net: Net) -> None:
    script(own, "hostile", "import sys\nfor _ in range(99999): print('x' * 99, file=sys.stderr)")
    assert confine.run("hostile", [], net.fd) == b""


def test_garbage_is_output(own: Path, net: Net) -> None:
    script(own, "hostile", "import os; os.write(1, bytes(range(256)))")
    assert confine.run("hostile", [], net.fd) == bytes(range(256))


def test_no_child_is_left(own: Path, net: Net) -> None:
    script(
        own, "hostile", "import os, time\nos.fork()\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    )
    with pytest.raises(ListingError):
        confine.run("hostile", [], net.fd, bounds=SHORT)
    # it is killed; a child of it ends a moment later, and would go on for a minute
    _until(lambda: not _hostile(own))


def _hostile(own: Path) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is_hostile(path, own)]


def _is_hostile(path: Path, own: Path) -> bool:
    try:
        return f"{own}/hostile".encode() in path.read_bytes()
    except OSError:
        return False


def test_it_ends_with_us(own: Path, net: Net) -> None:
    script(own, "hostile", "import os, time\nprint(flush=True)\ntime.sleep(60)")
    code = (
        "import os, sys\nfrom ipttctl.rules import confine\n"
        f"confine.program = lambda name: '{own}/hostile' if name == 'hostile' else"
        " '/usr/bin/setpriv'\n"
        f"confine.run('hostile', [], {net.fd}, bounds=confine.Bounds(seconds=60))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        pass_fds=[net.fd],
    ) as process:
        _until(lambda: bool(_hostile(own)))
        process.send_signal(signal.SIGKILL)
    _until(lambda: not _hostile(own))


def _until(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_is_not_there() -> None:
    with pytest.raises(ListingError, match="nonsense is not installed"):
        confine.run("nonsense", [], 0)


def test_what_others_can_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = script(tmp_path, "hostile", "")
    monkeypatch.setattr(tools, "find", lambda _: str(path))
    path.chmod(0o777)
    with pytest.raises(
        ListingError, match=r"hostile is not trusted: .* can be written to by others"
    ):
        confine.program("hostile")


def test_no_namespace() -> None:
    with (
        Path("/dev/null").open() as file,
        pytest.raises(ListingError, match="cannot be run"),
    ):
        confine.run("sh", [], file.fileno())
