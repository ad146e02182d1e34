# SPDX-License-Identifier: GPL-2.0
"""Cost of a link at a netfilter hook for a packet, in instructions, with and without a shadow.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams go over loopback past one link in OUTPUT that lets all of them pass. Each setting is
measured in every round, one after the other; its cost is its median minus that of "no link". The
first round warms up and is not counted.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import NfMode, Slot
from tests.bench.measuring import NO_LINK, Setting, linked, measured, report, returning, sender
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, enter_namespace, namespace

PACKETS = 3000


def settings(controller: Controller, keep: ExitStack, place: Namespace) -> dict[str, Setting]:
    """The settings to compare, by name."""
    drop, accept = (
        ProgramSet({Slot.PACKET: returning(value, keep, ProgramType.SOCKET_FILTER)})
        for value in (0, 1)
    )
    hook = NfHook.parse("nf:inet4/output", netns=place.path, mode=NfMode.FILTER)
    link = partial(linked, controller, hook, accept)
    passed_over = replace(accept, filter=compile_filter("tcp port 9999"))
    return {
        NO_LINK: nullcontext,
        "a link in filter mode": link,
        "a shadow that agrees": partial(link, shadow=accept),
        "a shadow whose filter passes it over": partial(link, shadow=passed_over),
        "a shadow that disagrees, nobody listens": partial(link, shadow=drop),
        "a shadow that disagrees, one observer": partial(link, shadow=drop, watched=True),
    }


def main() -> int:
    """Measure and print a table."""
    with namespace("bench") as place, Controller() as controller, ExitStack() as keep:
        wanted = settings(controller, keep, place)
        enter_namespace(place.path)
        results = measured(wanted, sender(keep), PACKETS)
    run("rmmod", "ipttrace")
    report(f"{PACKETS} datagrams", "packet", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
