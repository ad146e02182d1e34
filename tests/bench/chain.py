# SPDX-License-Identifier: GPL-2.0
"""Cost of the chain hook for a packet, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams go over loopback and meet one base chain, in OUTPUT, of as many rules as said. Each
setting is measured in every round, one after the other; the cost of a setting is its median minus
that of "no link". The first round warms up and is not counted.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.chain import ChainHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.bench.measuring import (
    NO_LINK,
    ROUNDS,
    Setting,
    linked,
    measured,
    report,
    returning,
    sender,
    stage,
    with_all_programs,
)
from tests.kernel.support.kernel import run
from tests.kernel.support.network import enter_namespace

SIZES = (1, 21, 20_000)
#: from which on fewer datagrams are sent
MANY = 1000


def settings(controller: Controller, keep: ExitStack, other: Path) -> dict[str, Setting]:
    """The settings to compare, by name."""
    no, yes = returning(0, keep), returning(1, keep)
    every = {Slot.ENTRY: yes, Slot.RULE: yes, Slot.EXIT: yes}
    link = partial(linked, controller)
    everywhere = partial(link, ChainHook())
    return {
        NO_LINK: nullcontext,
        "link of another namespace": partial(link, ChainHook(netns=other), ProgramSet(every)),
        "link of another family": partial(link, ChainHook.parse("chain:ip6"), ProgramSet(every)),
        "a filter passes the packet over": partial(
            everywhere, ProgramSet(every, filter=compile_filter("tcp port 9999"))
        ),
        "the entry program passes it over": partial(
            everywhere, ProgramSet({**every, Slot.ENTRY: no})
        ),
        "followed, exit program only": partial(everywhere, ProgramSet({Slot.EXIT: no})),
        **with_all_programs(controller, ChainHook(), yes),
    }


def ruleset(rules: int) -> str:
    """A base chain whose rules match no packet but the last one."""
    middle = "\n".join(f"udp dport {1 + n % 60000} drop" for n in range(rules - 1))
    return f"""
        flush ruleset
        table ip t {{
            chain c {{
                type filter hook output priority 0
                {middle}
                accept
            }}
        }}
    """


def main() -> int:
    """Measure and print a table for each size of the chain."""
    with stage() as (place, other, controller, keep):
        wanted = settings(controller, keep, other.path)
        enter_namespace(place.path)
        to = sender(keep)
        for rules in SIZES:
            run("nft", "-f", "-", text=ruleset(rules))
            packets, rounds = (6000, ROUNDS) if rules < MANY else (20, 4)
            results = measured(wanted, to, packets, rounds)
            report(f"{rules} rules, {packets} datagrams", "passage", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
