# SPDX-License-Identifier: GPL-2.0
"""BPF programs at netfilter hooks by links of the kernel's own (BPF_PROG_TYPE_NETFILTER)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ipttctl.stories.model import EndKind
from ipttctl.system import netns
from tests.kernel.support import assembler as asm
from tests.kernel.support import loader
from tests.kernel.support.bpf_tracers import LINK_CREATE
from tests.kernel.support.journeys import told
from tests.kernel.support.kernel import kernel_version
from tests.kernel.support.network import Namespace, Network
from tests.kernel.support.three_hosts import ARRIVED, PORT, Here
from tests.kernel.support.topologies import end_text, listener, send

pytestmark = pytest.mark.skipif(kernel_version() < (6, 4), reason="the kernel has no such links")

_NFPROTO_IPV4, _FORWARD = 2, 2


@contextmanager
def linked(where: Namespace, verdict: int) -> Iterator[None]:
    """A program at FORWARD of IPv4 that gives each packet a verdict."""
    kind = loader.NETFILTER_ATTACH
    with (
        loader.loaded(asm.returning(verdict), loader.NETFILTER, attach_type=kind) as program,
        where.path.open() as inside,
    ):
        # struct link_create of union bpf_attr, with netfilter
        request = struct.pack("=IIIIIIiI", program, 0, kind, 0, _NFPROTO_IPV4, _FORWARD, -10, 0)
        link = netns.within(inside.fileno(), lambda: loader.bpf(LINK_CREATE, request))
        try:
            yield
        finally:
            os.close(link)


def test_a_program_that_drops_is_to_blame(net: Network, here: Here) -> None:
    with linked(net.router, 0), here() as watched:
        send(net.left, "10.77.2.2", PORT)
    story = watched.one()
    assert story.end.kind is EndKind.FUNCTION
    assert end_text(story).startswith("dropped by nf_hook_run_bpf at FORWARD")
    watched.check_devices()


def test_a_program_that_accepts_is_a_function_of_the_hook(net: Network, here: Here) -> None:
    with (
        linked(net.router, 1),
        listener(net.right, PORT) as receiver,
        here() as watched,
    ):
        send(net.left, "10.77.2.2", PORT)
        receiver.recv(1)
    story = watched.one()
    assert told(story) == [*ARRIVED, "socket", "delivered"]
    functions = {one.record.chain.rstrip(b"\0") for one in story.plot.occurrences}
    assert b"nf_hook_run_bpf" in functions
    watched.check_devices()
