# SPDX-License-Identifier: GPL-2.0
"""Classic-BPF filters that use everything they may: they select, pass over, or are refused."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Mapping

import pytest

from ipttctl.errors import KernelError
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS, Slot
from ipttproto.family import limit
from tests.kernel.hostile.conftest import PASSES
from tests.kernel.support import assembler as asm
from tests.kernel.support.loader import loaded
from tests.kernel.support.network import Namespace

# include/uapi/linux/filter.h
AD, NET, LL = 0xFFFFF000, 0xFFF00000, 0xFFE00000
ANCILLARY = {
    "protocol": 0, "pkttype": 4, "ifindex": 8, "nlattr": 12, "nlattr_nest": 16, "mark": 20,
    "queue": 24, "hatype": 28, "rxhash": 32, "cpu": 36, "alu_xor_x": 40, "vlan_tag": 44,
    "vlan_tag_present": 48, "pay_offset": 52, "random": 56, "vlan_tpid": 60,
}  # fmt: skip  # pairs together
#: loads that need a device, which a packet in OUTPUT does not have
OF_THE_DEVICE = {"ifindex", "hatype"}


def step(code: int, k: int = 0, jt: int = 0, jf: int = 0) -> bytes:
    """One struct sock_filter."""
    return struct.pack("=HBBI", code, jt, jf, k)


LD_W, LD_B, LD_LEN, LD_IMM, LD_X, LD_MEM = 0x20, 0x30, 0x80, 0x00, 0x40, 0x60
LDX_IMM, LDX_MSH, ST, JA, JEQ, RET, RET_A = 0x01, 0xB1, 0x02, 0x05, 0x15, 0x06, 0x16
DIV_K, DIV_X, MOD_K, MOD_X, LSH_K = 0x34, 0x3C, 0x94, 0x9C, 0x64
TAKE, PASS_OVER = step(RET, 1), step(RET, 0)
IF_PING = step(JEQ, socket.IPPROTO_ICMP, 0, 1) + TAKE + PASS_OVER

SELECTING = {
    "nothing": (PASS_OVER, 0),
    "everything": (TAKE, PASSES),
    "the longest": (step(LD_LEN) * (limit("MAX_FILTER") - 1) + TAKE, PASSES),
    "all jumps": (step(JA, 0) * (limit("MAX_FILTER") - 1) + TAKE, PASSES),
    "divides by X = 0": (step(LDX_IMM, 0) + step(LD_IMM, 7) + step(DIV_X) + TAKE, 0),
    "remainder by X = 0": (step(LDX_IMM, 0) + step(LD_IMM, 7) + step(MOD_X) + TAKE, 0),
    "beyond the packet": (step(LD_W, 0x7FFFFFF0) + TAKE, 0),
    "the last bytes": (step(LD_W, 80) + TAKE, PASSES),
    "across the end": (step(LD_W, 81) + TAKE, 0),
    "from the network header": (step(LD_B, NET + 9) + IF_PING, PASSES),
    "far behind the network header": (step(LD_W, NET + 0xE0000) + TAKE, 0),
    # in OUTPUT there is no link-layer header yet
    "from the link-layer header": (step(LD_B, LL) + TAKE, PASSES // 2),
    "behind the link-layer header": (step(LD_B, LL + 0xFFFFF) + TAKE, 0),
    "before all headers": (step(LD_W, 0x80000000) + TAKE, 0),
    "at X = -16": (step(LDX_IMM, 0xFFFFFFF0) + step(LD_X) + TAKE, 0),
    "at X = -4096": (step(LDX_IMM, AD) + step(LD_X) + TAKE, 0),
    "at a wild X": (step(LDX_IMM, 0xDEADBEEF) + step(LD_X, 0x1000) + TAKE, 0),
    "behind the IP header": (step(LDX_MSH, 0) + step(LD_X) + TAKE, PASSES),
    "what it kept": (step(LD_IMM, 3) + step(ST, 15) + step(LD_MEM, 15) + step(RET_A), PASSES),
}


def _passages(
    controller: Controller, filters: Mapping[str, bytes], send: Callable[[], object], hook: Hook
) -> dict[str, tuple[int, int]]:
    """The packets that reached the hook and those selected, for a link with each of the filters."""
    with loaded(asm.returning(1)) as program:
        links = {
            name: controller.attach(
                hook, ProgramSet(dict.fromkeys(TABLE_SLOTS, program), filter=filter_)
            ).id
            for name, filter_ in filters.items()
        }
        send()
        stats = {name: controller.link(link).stats for name, link in links.items()}
        for link in links.values():
            controller.detach(link)
    assert all(one.nested == 0 for one in stats.values())
    return {name: (one.packets, one.selected) for name, one in stats.items()}


def test_what_filters_select(controller: Controller, place: Namespace, hook: Hook) -> None:
    filters = {name: filter_ for name, (filter_, _) in SELECTING.items()}
    assert _passages(controller, filters, lambda: place.ping("127.0.0.1"), hook) == {
        name: (PASSES, selected) for name, (_, selected) in SELECTING.items()
    }


@pytest.mark.parametrize("index", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_ancillary_loads(controller: Controller, place: Namespace, hook: Hook, index: int) -> None:
    registers = step(LD_IMM, index) + step(LDX_IMM, index)
    filters = {n: registers + step(LD_W, AD + offset) + TAKE for n, offset in ANCILLARY.items()}
    # without a device the filter ends there and returns its last loaded value
    without_device = PASSES if index else PASSES // 2
    assert _passages(controller, filters, lambda: place.ping("127.0.0.1"), hook) == {
        name: (PASSES, without_device if name in OF_THE_DEVICE else PASSES) for name in ANCILLARY
    }


def _connect_refused() -> None:
    with socket.socket() as connecting, pytest.raises(ConnectionRefusedError):
        connecting.connect(("127.0.0.1", 81))


def test_ancillary_loads_of_a_packet_without_device_and_socket(
    controller: Controller, place: Namespace
) -> None:
    """The RST of a REJECT rule has neither device nor socket."""
    place.iptables("-A", "OUTPUT", "-p", "tcp", "--dport", "81", "-j", "REJECT",
                   "--reject-with", "tcp-reset")  # fmt: skip  # pairs together
    filters = {name: step(LD_W, AD + offset) + TAKE for name, offset in ANCILLARY.items()}
    # SYN out, RST out and in
    assert _passages(controller, filters, lambda: place.call(_connect_refused), TableHook()) == {
        name: (3, 1 if name in OF_THE_DEVICE else 3) for name in ANCILLARY
    }


REFUSED = {
    "divides by 0": step(DIV_K, 0) + TAKE,
    "remainder by 0": step(MOD_K, 0) + TAKE,
    "jumps backwards": step(JA, 0xFFFFFFFF) + TAKE,
    "jumps beyond the end": step(JA, 1) + TAKE,
    "jumps beyond the end if so": step(JEQ, 0, 5, 0) + TAKE + TAKE,
    "does not return": step(LD_LEN),
    "shifts too far": step(LSH_K, 32) + TAKE,
    "memory that is not there": step(LD_MEM, 16) + TAKE,
    "memory that nobody set": step(LD_MEM, 3) + TAKE,
    "memory set on one way only": step(JEQ, 0, 0, 1) + step(ST, 3) + step(LD_MEM, 3) + TAKE,
    "ancillary that is not there": step(LD_W, AD + 64) + TAKE,
    "no such instruction": step(0xFFFF) + TAKE,
    "an instruction of eBPF": asm.instruction(0x85, immediate=asm.TRACE_PRINTK) + TAKE,
    "too long by one, as it is counted": step(LD_LEN) * limit("MAX_FILTER"),
}


def test_filters_that_are_refused(controller: Controller, hook: Hook) -> None:
    with loaded(asm.returning(1)) as program:
        for name, filter_ in REFUSED.items():
            with pytest.raises(KernelError, match="not valid classic BPF") as refused:
                controller.attach(hook, ProgramSet({Slot.ENTRY: program}, filter=filter_))
            assert refused.value.errno == errno.EINVAL, name
            assert controller.links() == [], name
