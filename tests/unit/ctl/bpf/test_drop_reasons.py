# SPDX-License-Identifier: GPL-2.0
"""Names of the reasons for which the kernel drops packets."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest

from ipttctl.bpf import drop_reasons
from ipttctl.bpf.btf import Btf
from ipttctl.bpf.drop_reasons import DropReasons
from ipttctl.errors import ProgramError

ENUM = 6


def enums(*described: tuple[str, dict[str, int]]) -> bytes:
    """Raw BTF with some enumerations."""
    names, content = b"\0", b""

    def offset(name: str) -> int:
        nonlocal names
        place, names = len(names), names + name.encode() + b"\0"
        return place

    for called, values in described:
        content += struct.pack("=III", offset(called), ENUM << 24 | len(values), 4)
        for name, value in values.items():
            content += struct.pack("=II", offset(name), value)
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(content), len(content), len(names))
    return head + content + names


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with reasons of its own, and with those of Open vSwitch."""
    data = enums(
        (
            "skb_drop_reason",
            {
                "SKB_NOT_DROPPED_YET": 0,
                "SKB_CONSUMED": 1,
                "SKB_DROP_REASON_NO_SOCKET": 3,
                "SKB_DROP_REASON_MAX": 4,
                "SKB_DROP_REASON_SUBSYS_MASK": 0xFFFF0000,
            },
        ),
        ("ovs_drop_reason", {"OVS_DROP_LAST_ACTION": 0x30000, "OVS_DROP_ACTION_ERROR": 0x30001}),
    )
    monkeypatch.setattr(Btf, "of_kernel", lambda: Btf.from_data(data))


@pytest.mark.usefixtures("kernel")
def test_names_as_the_kernel_prints_them() -> None:
    reasons = DropReasons.of_kernel()
    assert reasons is not None
    assert [reasons.name(number) for number in range(5)] == [
        "NOT_DROPPED_YET",
        "CONSUMED",
        None,
        "NO_SOCKET",
        None,
    ]


def test_reasons_of_subsystems_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def look() -> dict[int, str]:
        calls.append(1)
        return {0x30001: "OVS_DROP_ACTION_ERROR"}

    monkeypatch.setattr(drop_reasons, "_of_subsystems", look)
    reasons = DropReasons({3: "NO_SOCKET"})
    assert reasons.name(3) == "NO_SOCKET"
    assert not calls
    assert reasons.name(0x30001) == "OVS_DROP_ACTION_ERROR"
    assert reasons.name(0x30003) is None
    assert reasons.name(0xFFFF0000) is None
    assert len(calls) == 1


def test_only_numbers_of_a_subsystem_are_its_own() -> None:
    data = enums(("ovs_drop_reason", {"OVS_A": 2, "OVS_B": 0x30002, "OVS_C": 0x30002}))
    with Btf.from_data(data) as types:
        found = drop_reasons._reasons(types, "enum ovs_drop_reason")
        assert drop_reasons._own(found) == {0x30002: "OVS_B"}
        assert drop_reasons._reasons(types, "enum skb_drop_reason") == {}


def test_a_kernel_without_types_or_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Btf, "of_kernel", lambda: Btf.from_data(enums(("other", {"A": 1}))))
        assert DropReasons.of_kernel() is None

    def fail() -> Btf:
        raise ProgramError("no types")

    monkeypatch.setattr(Btf, "of_kernel", fail)
    assert DropReasons.of_kernel() is None


@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="the kernel has no BTF")
def test_the_running_kernel() -> None:
    """The names are those that another reader of the same types finds."""
    dump = ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux"]
    try:
        text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("bpftool is missing or cannot read the kernel's types")
    found = re.search(r"ENUM 'skb_drop_reason'.*\n((?:\t.*\n)+)", text)
    reasons = DropReasons.of_kernel()
    if found is None:
        assert reasons is None
        return
    assert reasons is not None
    values = dict(re.findall(r"'SKB_DROP_REASON_(\w+)' val=(\d+)\n", found[1]))
    last = int(values.pop("MAX"))
    values.pop("SUBSYS_MASK", None)
    assert len(values) > 50
    assert {name: reasons.name(int(number)) for name, number in values.items()} == {
        name: name for name in values
    }
    assert reasons.name(last) is None
    assert reasons.name(0x7FFF0001) is None
