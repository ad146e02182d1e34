# SPDX-License-Identifier: GPL-2.0
"""Cost of the spine for a packet, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams leave by a device that sends them to nobody. They come to two hooks: OUTPUT, with the
functions of empty base chains, as many as said, and POSTROUTING, with that of AppArmor, if the
kernel has it. Where there are no functions, OUTPUT has a placeholder while a link wants it. Each
setting is measured in every round, one after the other; the cost of a setting is its median minus
that of "no link". The first round warms up and is not counted.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.bench.journey import datagrams
from tests.bench.measuring import (
    NO_LINK,
    Setting,
    linked,
    measured,
    report,
    returning,
    stage,
    with_all_programs,
)
from tests.kernel.support.kernel import run
from tests.kernel.support.network import enter_namespace, ip_batch

FUNCTIONS = (0, 1, 2, 11)
PACKETS = 6000


def settings(controller: Controller, keep: ExitStack, other: Path) -> dict[str, Setting]:
    """The settings to compare, by name."""
    no, yes = returning(0, keep), returning(1, keep)
    every = dict.fromkeys(SpineHook.SLOTS, yes)
    link = partial(linked, controller)
    everywhere = partial(link, SpineHook())
    return {
        NO_LINK: nullcontext,
        "link of another namespace": partial(link, SpineHook(netns=other), ProgramSet(every)),
        "link of another family": partial(link, SpineHook.parse("spine:inet6"), ProgramSet(every)),
        "a filter passes the packet over": partial(
            everywhere, ProgramSet(every, filter=compile_filter("tcp port 9999"))
        ),
        "the entry program passes it over": partial(
            everywhere, ProgramSet({**every, Slot.ENTRY: no})
        ),
        "followed, exit program only": partial(everywhere, ProgramSet({Slot.EXIT: no})),
        "followed, function program only": partial(everywhere, ProgramSet({Slot.FUNCTION: no})),
        **with_all_programs(controller, SpineHook(), yes),
    }


def ruleset(functions: int) -> str:
    """Base chains without rules, each of which is a function of the hook."""
    chains = "\n".join(
        f"chain c{n} {{ type filter hook output priority {n}; }}" for n in range(functions)
    )
    return f"flush ruleset\ntable ip t {{\n{chains}\n}}"


def main() -> int:
    """Measure and print a table for each number of functions."""
    with stage() as (place, other, controller, keep):
        wanted = settings(controller, keep, other.path)
        enter_namespace(place.path)
        ip_batch(
            place.name,
            "link add d0 type dummy",
            "link set d0 up",
            "address add 10.9.0.1/24 dev d0",
            "neighbour replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev d0",
        )
        to = datagrams(keep, "10.9.0.2")
        for functions in FUNCTIONS:
            run("nft", "-f", "-", text=ruleset(functions))
            results = measured(wanted, to, PACKETS)
            report(f"{functions} functions, {PACKETS} datagrams", "datagram", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
