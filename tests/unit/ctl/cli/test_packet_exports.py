# SPDX-License-Identifier: GPL-2.0
"""``ipttctl export --pcapng``: packets with their stories, and exports that are ended."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import packets_file, run
from ipttctl.recordings.reader import Events, Recording
from tests.unit.ctl.cli.captures import DATAGRAM, with_bytes, write_capture
from tests.unit.ctl.stories.packets import flood, to_docker

pytestmark = pytest.mark.usefixtures("left_open")


def test_packets_have_their_stories(
    captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "file.pcapng"
    assert run(["export", str(captured), "--pcapng", str(made)]) == 0
    assert capsys.readouterr().err == f"{made}: 1 packet\n"
    data = made.read_bytes()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    kinds = []
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert struct.unpack_from("<I", data, at + size - 4) == (size,)
        kinds.append(kind)
        at += size
    assert kinds == [0x0A0D0D0A, 1, 6]
    assert DATAGRAM in data
    assert b"dropped by filter DOCKER-USER 1" in data
    assert run(["export", str(captured), "--pcapng", str(made)]) == 2
    assert run(["export", str(captured), "--pcapng", str(made), "--force"]) == 0


def test_the_recording_itself_is_never_replaced(
    captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = captured.read_bytes()
    made = tmp_path / "tables"
    assert run(["export", str(captured), "--pcapng", str(captured), "--force"]) == 2
    assert "is the recording itself; choose another file" in capsys.readouterr().err
    made.mkdir()
    inside = captured.rename(made / "steps.parquet")
    assert run(["export", str(inside), "--parquet", str(made), "--force"]) == 2
    assert "is the recording itself; choose another file" in capsys.readouterr().err
    assert inside.read_bytes() == before
    assert list(made.iterdir()) == [inside]


def test_of_two_exports_none_is_made_if_one_cannot_be(
    captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables, packets = tmp_path / "tables", tmp_path / "packets"
    tables.mkdir()
    (tables / "links.parquet").write_text("old")
    both = ["export", str(captured), "--parquet", str(tables), "--pcapng", str(packets)]
    assert run(both) == 2
    assert "links.parquet is there already" in capsys.readouterr().err
    assert not packets.exists()
    shutil.rmtree(tables)
    packets.mkdir()
    assert run(both) == 2
    assert not tables.exists()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_export_that_is_ended_leaves_nothing(
    ending: signal.Signals, captured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "tables"
    real = packets_file._packets

    def ended(*arguments: Any) -> Any:
        yield from real(*arguments)
        os.kill(os.getpid(), ending)

    monkeypatch.setattr(packets_file, "_packets", ended)
    before = list(tmp_path.iterdir())
    command = ["export", str(captured), "--pcapng", str(tmp_path / "made")]
    assert run([*command, "--parquet", str(made)]) == 130
    assert list(tmp_path.iterdir()) == before


@pytest.mark.parametrize("offset", [-(2**63), 2**63 - 1])
def test_times_that_no_packet_has_make_no_file(
    offset: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = with_bytes(to_docker())
    time = 2**64 - 1 if offset > 0 else 5
    [packet] = flood(1, 20)
    bad = replace(with_bytes(packet, time=time), clock_offset=offset)
    made = tmp_path / "made"
    path = write_capture(tmp_path / "forged", good, bad)
    assert run(["export", str(path), "--pcapng", str(made)]) == 1
    assert "has a time that none can have" in capsys.readouterr().err
    assert not made.exists()


@pytest.mark.parametrize("snaplen", [-1, 2**32])
def test_a_snaplen_out_of_bounds_is_one_sentence(
    snaplen: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_capture(tmp_path / "forged", with_bytes(to_docker()), snaplen=snaplen)
    assert run(["export", str(path), "--pcapng", str(tmp_path / "made")]) == 1
    assert "snaplen is out of bounds" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_opens_packets(captured: Path, tmp_path: Path) -> None:
    made = tmp_path / "file.pcapng"
    assert run(["export", str(captured), "--pcapng", str(made)]) == 0
    fields = ["ip.src", "udp.dstport", "frame.comment", "frame.time_epoch", "frame.interface_name"]
    done = subprocess.run(
        ["tshark", "-r", str(made), "-T", "fields", *(f"-e{name}" for name in fields)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    source, port, comment, time, interface = done.stdout.rstrip("\n").split("\t")
    assert (source, port, interface) == ("192.0.2.1", "9", "eth0")
    assert "dropped by filter DOCKER-USER 1" in comment
    [item] = [one for one in Recording.open(captured).items() if isinstance(one, Events)]
    batch = item.batches[0]
    assert float(time) == pytest.approx((int(batch.events["time"][1]) + batch.clock_offset) / 1e9)


def test_without_bytes_there_are_no_packets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_capture(tmp_path / "without", with_bytes(to_docker()), snaplen=0)
    assert run(["export", str(path), "--pcapng", str(tmp_path / "made")]) == 2
    assert "headers are not made up; record with --snaplen" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
