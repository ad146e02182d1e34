# SPDX-License-Identifier: GPL-2.0
"""Unavailable programs and pins, each with its own sentence, and trace options."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipttctl.bpf import syscalls
from ipttctl.bpf.programs import Program
from ipttctl.errors import ProgramError, UsageError
from ipttctl.programs.trace import TraceOptions


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_closed_fd_is_named() -> None:
    with pytest.raises(ProgramError, match="fd 987 is not open in this process; leave it open"):
        Program.from_fd(987)


def test_an_fd_of_something_else_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with file.open() as opened:
        before = open_fds()
        with pytest.raises(ProgramError, match=f"is not a BPF program but {file}"):
            Program.from_fd(opened.fileno())
        assert open_fds() == before


def test_a_path_elsewhere_is_not_a_pin(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="is not in a BPF file system; use a path below /sys"):
        Program.from_pinned(tmp_path / "program")


def test_an_unmounted_bpffs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "on_bpffs", lambda _: False)
    with pytest.raises(ProgramError, match="run: mount -t bpf"):
        Program.from_pinned("/sys/fs/bpf/surely/nothing/here")


def test_a_closed_program_cannot_be_used_and_closes_again() -> None:
    read, write = os.pipe()
    os.close(write)
    program = Program(read)
    program.close()
    program.close()
    with pytest.raises(ProgramError, match="the program is closed"):
        _ = program.fd
    assert repr(program) == "<Program, closed>"


def test_no_options_want_everything() -> None:
    assert TraceOptions().constants() == {"want": 0}


def test_each_option_sets_its_own_bit() -> None:
    options = [
        TraceOptions(address=ip_address("10.0.0.1")),
        TraceOptions(protocol=0),
        TraceOptions(port=0),
        TraceOptions(icmp_id=0),
        TraceOptions(pid=1),
        TraceOptions(netns=4026531840),
    ]
    bits = [option.constants()["want"] for option in options]
    assert sorted(bits) == [1, 2, 4, 8, 16, 32]


def test_addresses_are_as_on_the_wire() -> None:
    ipv4 = TraceOptions(address=ip_address("1.2.3.4")).constants()
    assert ipv4["want_address_pf"] == 2
    assert ipv4["want_address_high"].to_bytes(8, sys.byteorder) == bytes([1, 2, 3, 4, 0, 0, 0, 0])
    ipv6 = TraceOptions(address=ip_address("fd00::7")).constants()
    assert ipv6["want_address_pf"] == 10
    assert ipv6["want_address_low"].to_bytes(8, sys.byteorder) == bytes([0] * 7 + [7])


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("10.1.0.0/20", "ffff f000 0000 0000 0000 0000 0000 0000"),
        ("10.1.2.3/32", "ffff ffff 0000 0000 0000 0000 0000 0000"),
        ("0.0.0.0/0", "0000 0000 0000 0000 0000 0000 0000 0000"),
        ("fd00::/9", "ff80 0000 0000 0000 0000 0000 0000 0000"),
        ("fd00::/65", "ffff ffff ffff ffff 8000 0000 0000 0000"),
        ("fd00::7/128", "ffff ffff ffff ffff ffff ffff ffff ffff"),
    ],
)
def test_networks_have_masks(text: str, mask: str) -> None:
    constants = TraceOptions(address=ip_network(text)).constants()
    halves = (constants[f"want_mask_{half}"] for half in ("high", "low"))
    assert b"".join(half.to_bytes(8, sys.byteorder) for half in halves) == bytes.fromhex(mask)


def test_an_address_is_a_network_of_one() -> None:
    for text in ("10.1.2.3", "fd00::7", "fe80::1%eth0"):
        one = TraceOptions(address=ip_address(text)).constants()
        assert one == TraceOptions(address=ip_network(text.partition("%")[0])).constants()


@pytest.mark.parametrize(
    "options",
    [
        TraceOptions(port=65536),
        TraceOptions(protocol=256),
        TraceOptions(icmp_id=-1),
        TraceOptions(pid=0),
        TraceOptions(netns=1 << 64),
    ],
)
def test_numbers_out_of_range_are_usage_errors(options: TraceOptions) -> None:
    with pytest.raises(UsageError, match="is not between"):
        options.constants()
