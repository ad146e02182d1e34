# SPDX-License-Identifier: GPL-2.0
"""Recordings of real packets: shown without the module's help, queried, opened by tshark.

left eth0 10.77.1.2 --- r1 10.77.1.1 router r2 10.77.2.1 --- eth0 10.77.2.2 right
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kernel.support.cli import ipttctl, running
from tests.kernel.support.kernel import run, wait_for
from tests.kernel.support.network import Network, network

RULES: Final = """
table ip t {
    chain forward {
        type filter hook forward priority 0
        icmp type echo-request ip length > 300 drop
        tcp dport 22 accept
    }
}
"""
SNAPLEN: Final = 100


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network("rec") as made:
        path = Path("/run/ipttctl-test-recordings.nft")
        path.write_text(RULES)
        made.router.run("nft", "-f", str(path))
        path.unlink()
        made.left.ping("10.77.2.2")
        yield made


@pytest.fixture(scope="module")
def recording(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of two pings that pass and one that does not."""
    path = tmp_path_factory.mktemp("recording") / "file.ipr"
    pings = (
        f"ip netns exec {net.left.name} ping -c 2 -i 0.2 10.77.2.2; "
        f"ip netns exec {net.left.name} ping -c 1 -W 1 -s 400 10.77.2.2; true"
    )
    options = ["-N", net.left.name, "--snaplen", str(SNAPLEN), "--cmd", pings]
    done = ipttctl("record", str(path), "icmp", *options)
    assert done.returncode == 0, done.stderr
    assert "the command has ended: exit status 0" in done.stderr
    assert ", lost 0" in done.stderr
    return path


def shown(path: Path, *options: str) -> list[dict[str, Any]]:
    """The objects of ``ipttctl show``."""
    done = ipttctl("show", str(path), "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()][1:]


def test_stories_are_shown_with_their_rules(recording: Path) -> None:
    stories = shown(recording)
    requests = [one for one in stories if one["headers"]["icmp_type"] == 8]
    assert len(requests) == 3
    [drop] = [one for one in stories if one["end"]["dropped"]]
    assert drop["headers"]["length"] == 428
    assert drop["end"]["rule"]["rule"] == "icmp type echo-request ip length > 300 drop"
    done = ipttctl("show", str(recording), "--drops")
    assert "icmp type echo-request ip length > 300 drop" in done.stdout
    assert "1 story told" in done.stderr


def test_the_whole_ruleset_is_there_with_rules_that_no_packet_met(
    recording: Path, net: Network
) -> None:
    done = ipttctl("show", str(recording), "--rulesets", "-o", "json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    [one] = [one for one in found if one["netns_name"] == net.router.name]
    assert one["backend"] == "nft"
    assert "icmp type echo-request ip length > 300 drop" in one["text"]
    assert "tcp dport 22 accept" in one["text"]


def test_no_module_and_no_root_is_needed(recording: Path, tmp_path: Path) -> None:
    """As nobody, who can read the file and nothing else of ours."""
    copy = tmp_path / "copy"
    shutil.copy(recording, copy)
    copy.chmod(0o644)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o005 != 0o005:
            directory.chmod(directory.stat().st_mode | 0o055)
    root = ipttctl("show", str(copy), "-v")
    under = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    nobody = ipttctl("show", str(copy), "-v", under=under)
    assert nobody.returncode == 0, nobody.stderr
    assert nobody.stdout == root.stdout != ""


def test_a_query_finds_the_drop(recording: Path, net: Network) -> None:
    done = ipttctl("query", "--drops-by-rule", "--since", "1h", str(recording), "-o", "json")
    assert done.returncode == 0, done.stderr
    [row] = map(json.loads, done.stdout.splitlines())
    assert (row["drops"], row["table"], row["chain"]) == (1, "t", "forward")
    assert row["rule"] == "icmp type echo-request ip length > 300 drop"
    done = ipttctl("query", "SELECT netns_name FROM drops", str(recording), "-o", "csv")
    assert done.stdout.split() == ["netns_name", net.router.name]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_sees_the_packets_with_their_stories(recording: Path, tmp_path: Path) -> None:
    made = tmp_path / "file.pcapng"
    done = ipttctl("export", str(recording), "--pcapng", str(made))
    assert done.returncode == 0, done.stderr
    names = ["ip.src", "ip.dst", "icmp.type", "icmp.seq", "ip.len", "frame.cap_len", "frame.len"]
    names += ["ip.checksum.status", "frame.comment"]
    fields = [f"-e{name}" for name in names]
    options = ["-o", "ip.check_checksum:TRUE", "-E", "separator=|", "-E", "occurrence=f"]
    out = run("tshark", "-r", str(made), *options, "-T", "fields", *fields)
    rows = [line.split("|") for line in out.splitlines() if line.count("|") >= len(names) - 1]
    requests = [row for row in rows if row[2] == "8"]
    assert len(requests) == 3
    for source, destination, _, _, length, captured, whole, status, comment in requests:
        assert (source, destination) == ("10.77.1.2", "10.77.2.2")
        assert whole == length
        assert int(captured) == min(SNAPLEN, int(length))
        # the header is as it was, so its checksum is right
        assert status == "1"
        assert "10.77.1.2 > 10.77.2.2" in comment
    comments = {row[4]: row[8] for row in requests}
    assert "dropped by" in comments["428"]
    assert "dropped by" not in comments["84"]


def test_a_recording_that_is_killed_has_what_was_seen(net: Network, tmp_path: Path) -> None:
    path = tmp_path / "killed"
    with running("record", str(path), "icmp", "-N", net.left.name) as command:
        command.wait_for_text("tracing: links")
        net.left.ping("10.77.2.2")
        wait_for(lambda: len(shown(path)) > 0, what="stories in the file")
        command.process.kill()
        command.process.wait()
    assert any(one["headers"]["icmp_type"] == 8 for one in shown(path))
    assert "was not finished" in ipttctl("show", str(path)).stderr


def test_signals_end_a_recording_with_everything_written(net: Network, tmp_path: Path) -> None:
    path = tmp_path / "ended"
    with running("record", str(path), "icmp", "-N", net.left.name) as command:
        command.wait_for_text("tracing: links")
        net.left.ping("10.77.2.2")
        assert command.stop() == 0, command.err()
    done = ipttctl("show", str(path))
    assert "not finished" not in done.stderr
    assert "icmp 10.77.1.2 > 10.77.2.2" in done.stdout
