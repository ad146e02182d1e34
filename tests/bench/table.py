# SPDX-License-Identifier: GPL-2.0
"""Cost of the table hook for a packet, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams go over loopback through one rule of the filter table in OUTPUT and one in INPUT. Each
setting is measured in every round, one after the other; the cost of a setting is its median minus
that of "no link", for one passage through a table. The first round warms up and is not counted.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from functools import partial

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.bench.measuring import (
    NO_LINK,
    Setting,
    linked,
    measured,
    report,
    returning,
    sender,
    with_all_programs,
)
from tests.kernel.support.kernel import run
from tests.kernel.support.network import enter_namespace, namespace

PACKETS = 2000
#: a datagram over loopback passes filter twice: OUTPUT and INPUT
PASSAGES = 2


def settings(controller: Controller, keep: ExitStack) -> dict[str, Setting]:
    """The settings to compare, by name."""
    no, yes = returning(0, keep), returning(1, keep)
    every = {Slot.ENTRY: yes, Slot.RULE: yes, Slot.EXIT: yes}
    leaving = ProgramSet({Slot.EXIT: no})
    link = partial(linked, controller, TableHook())
    counting = partial(linked, controller, TableHook(count_rules=True))
    return {
        NO_LINK: nullcontext,
        "a filter passes the packet over": partial(
            link, ProgramSet(every, filter=compile_filter("tcp port 9999"))
        ),
        "the entry program passes it over": partial(link, ProgramSet({**every, Slot.ENTRY: no})),
        "selected, no rule and exit program": partial(link, ProgramSet({Slot.ENTRY: yes})),
        "followed, exit program only": partial(link, leaving),
        "followed, exit program, rules counted": partial(counting, leaving),
        **with_all_programs(controller, TableHook(), yes),
    }


def main() -> int:
    """Measure and print a table."""
    with namespace("bench") as place, Controller() as controller, ExitStack() as keep:
        place.iptables("-A", "OUTPUT", "-p", "udp")
        place.iptables("-A", "INPUT", "-p", "udp")
        wanted = settings(controller, keep)
        enter_namespace(place.path)
        results = measured(wanted, sender(keep), PACKETS)
    run("rmmod", "ipttrace")
    report(f"{PACKETS} datagrams", "passage", results, PASSAGES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
