#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A rate limiter with a name: attached once, its limits changed while it runs, its program too.

    limiter.py install HOOK limit.o [--default LIMIT] [--netns PATH]
    limiter.py set ADDRESS LIMIT
    limiter.py unset ADDRESS
    limiter.py show

limit.o is bpf/limit.c, compiled; HOOK is one of netfilter's, such as nf:inet4/forward, in the
initial network namespace or in that of PATH. A limit is a number of packets in a second; --default
is that of addresses without one of their own, where 0 is none. Every command finds the limiter by
its name: nothing runs, or is remembered elsewhere, between two of them. `install` may be run again:
it swaps the program, and the limits and counts stay. Ends as ipttctl would.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

from ipttctl import (
    Controller,
    IpttctlError,
    Link,
    LinkGoneError,
    NfHook,
    NfMode,
    ProgramChoice,
    Slot,
    UsageError,
    keep_maps,
    map_of,
    parse_source,
)

NAME: Final = "limiter"


def install(hook: str, file: str, default: str, netns: str | None) -> None:
    """Attach the limiter, or swap its program."""
    choice = ProgramChoice(
        {Slot.PACKET: parse_source("object", f"{file}:limit")}, constants={"default_limit": default}
    )
    with Controller() as controller:
        try:
            link = controller.link(NAME)
        except LinkGoneError:
            place = NfHook.parse(hook, netns=netns, mode=NfMode.FILTER)
            with choice.open() as programs:
                link = controller.attach(place, programs, persistent=True, name=NAME)
            print(f"attached {NAME}: link {link.id} at {link.hook}")
            return
        # the same maps, not copies: both programs count in them while the swap is under way
        with keep_maps(link) as kept, choice.open(keep=kept) as programs:
            link = controller.swap(link.id, programs, expect_generation=link.generation)
        print(f"swapped {NAME}: generation {link.generation}")


def limiter() -> Link:
    """The limiter as it is now."""
    with Controller() as controller:
        return controller.link(NAME)


def set_limit(address: str, limit: str) -> None:
    """Set the limit of an address: the next packet meets it."""
    with map_of(limiter(), "limits") as limits:
        limits.set(address, limit)


def unset_limit(address: str) -> None:
    """Have an address limited as all others are."""
    with map_of(limiter(), "limits") as limits:
        if not limits.remove(address):
            raise UsageError(f"{address} has no limit of its own")


def show() -> None:
    """Print each address that was seen or has a limit: its limit, what passed, what was dropped."""
    link = limiter()
    with map_of(link, "limits") as limits, map_of(link, "counts") as counts:
        limited, counted = dict(limits.dump()), dict(counts.dump())
    for address in sorted({*limited, *counted}):
        count = counted.get(address, {"passed": 0, "dropped": 0})
        print(address, limited.get(address, "-"), count["passed"], count["dropped"])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    for word, command, names in (
        ("install", install, ["hook", "file"]),
        ("set", set_limit, ["address", "limit"]),
        ("unset", unset_limit, ["address"]),
        ("show", show, []),
    ):
        own = commands.add_parser(word, help=command.__doc__)
        own.set_defaults(run=command)
        for name in names:
            own.add_argument(name)
        if command is install:
            own.add_argument("--default", default="0")
            own.add_argument("--netns")
    return parser.parse_args()


def main() -> int:
    """Do what the command line says; the exit status."""
    given = vars(arguments())
    run = given.pop("run")
    try:
        run(**given)
    except IpttctlError as error:
        print(f"limiter.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
