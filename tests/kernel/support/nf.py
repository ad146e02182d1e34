# SPDX-License-Identifier: GPL-2.0
"""Links at netfilter hooks, as the tests attach them."""

from __future__ import annotations

from typing import Any

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.system.netns import Identity
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.network import Namespace

NF_DROP, NF_ACCEPT = 0, 1
UDP, ICMP = 17, 1


def nf_hook(link: Link) -> NfHook:
    """The netfilter hook of a link."""
    assert isinstance(link.hook, NfHook)
    return link.hook


def netns_of(link: Link) -> Identity:
    """The network namespace of a link at a netfilter hook."""
    found = nf_hook(link).netns
    assert isinstance(found, Identity)
    return found


#: struct __sk_buff: cb[0]
CB = 48


def of_protocol(number: int) -> bytes:
    """A socket filter that returns 1 for the IPv4 packets of a transport protocol, 0 for others."""
    return (
        asm.mov_reg(asm.R6, asm.R1)
        + asm.load_packet_byte(9)
        + asm.jump_if_equal(asm.R0, number, 2)
        + asm.returning(0)
        + asm.returning(1)
    )


def all_but(number: int) -> bytes:
    """A socket filter that returns 0 for the IPv4 packets of a protocol, 1 for others."""
    return (
        asm.mov_reg(asm.R6, asm.R1)
        + asm.load_packet_byte(9)
        + asm.jump_if_equal(asm.R0, number, 2)
        + asm.returning(1)
        + asm.returning(0)
    )


def socket_filter(make_program: MakeProgram, code: bytes, name: str = "test") -> Program:
    """A loaded socket filter."""
    return make_program(code, name=name, type=ProgramType.SOCKET_FILTER)


def attach(
    controller: Controller,
    program: Program,
    where: str,
    namespace: Namespace | None = None,
    *,
    persistent: bool = False,
    payload: int | None = None,
    **options: Any,
) -> Link:
    """Attach a program to the hook ``where``, in the command line's syntax."""
    netns = namespace.path if namespace else None
    hook = NfHook.parse(where, netns=netns, **options)
    programs = ProgramSet({Slot.PACKET: program.fd}, payload=payload)
    return controller.attach(hook, programs, persistent=persistent)
