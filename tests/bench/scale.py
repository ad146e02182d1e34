# SPDX-License-Identifier: GPL-2.0
"""Cost of a packet by the number of links, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams go over loopback through one base chain, in OUTPUT, of one rule. Links are in other
network namespaces, have a filter that passes the packet over, or follow it with an exit program
while nobody listens.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.chain import ChainHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot, Walk
from tests.bench.chain import ruleset
from tests.bench.measuring import ROUNDS, returning, send, sender
from tests.kernel.support.kernel import run, wait_for_no_redirection
from tests.kernel.support.network import enter_namespace, namespace

LINKS = (1, 2, 8, 32, 128)
PACKETS = 1000


def settings(keep: ExitStack, places: list[Path]) -> dict[str, list[tuple[ChainHook, ProgramSet]]]:
    """The links of each setting, as many as there may be."""
    leaving = ProgramSet({Slot.EXIT: returning(0, keep)})
    filtered = replace(leaving, filter=compile_filter("tcp port 9999"))
    most = max(LINKS)
    return {
        "in other namespaces": [(ChainHook(netns=place), leaving) for place in places],
        "a filter passes the packet over": [(ChainHook(), filtered)] * most,
        "follow it": [(ChainHook(), leaving)] * most,
    }


def main() -> int:
    """Measure and print a table."""
    with namespace("bench") as place, Controller() as controller, ExitStack() as keep:
        others = [keep.enter_context(namespace(f"other{n}")).path for n in range(max(LINKS))]
        controller.end_verification(Walk.VERIFIED)
        wanted = settings(keep, others)
        enter_namespace(place.path)
        to = sender(keep)
        run("nft", "-f", "-", text=ruleset(1))
        base = median(to)
        print(f"kernel {os.uname().release}, {PACKETS} datagrams in {ROUNDS - 1} rounds")
        print(f"{'links':40}" + "".join(f"{count:>9}" for count in LINKS))
        for name, links in wanted.items():
            cells = ""
            for count in LINKS:
                made = [controller.attach(*one).id for one in links[:count]]
                cells += f"{median(to) - base:9.0f}"
                for number in made:
                    controller.detach(number)
                wait_for_no_redirection()
            print(f"{name:40}{cells}", flush=True)
    run("rmmod", "ipttrace")
    return 0


def median(to: socket.socket) -> float:
    """The instructions per datagram, of the rounds after the first."""
    return statistics.median([send(to, PACKETS) for _ in range(ROUNDS)][1:])


if __name__ == "__main__":
    sys.exit(main())
