#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A canary over all links of a fleet: swap them in one step, look, and keep the programs or not.

    orchestrator.py FLEET FILE:PROGRAM SECONDS [NAME=VALUE...]
    orchestrator.py edge limit.o:limit 30 default_limit=100

The fleet is every link with the label fleet=FLEET, all of them in the filter mode of netfilter
hooks. The new programs keep the maps of the old ones. They have SECONDS; if a link drops more than
twice what it dropped before and ten packets a second, nobody confirms them, and the module swaps
all links back.

It keeps nothing itself: the labels of a generation say which version it is and what was usual
before. So it can be killed at any time. Started again, it goes on with the canary that it finds
under way; if it is not, the module swaps back by itself.

Ends with 0 if the new programs stay (or were there already), 1 if they do not, and otherwise as
ipttctl would.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ipttctl import (
    Controller,
    ExpectationError,
    IpttctlError,
    Link,
    LinkGoneError,
    Part,
    ProgramChoice,
    Slot,
    Swap,
    UsageError,
    keep_maps,
    parse_source,
)

#: drops a second that are nothing to worry about
ALLOWANCE = 10
#: seconds in which links show what they usually drop
USUAL = 1
#: seconds between two looks at the counters, which tell nobody when they change
INTERVAL = 0.5


def fleet_of(controller: Controller, fleet: str) -> list[Link]:
    """The links of a fleet."""
    found = [link for link in controller.links() if link.labels.get("fleet") == fleet]
    if not found:
        raise UsageError(f"no link has the label fleet={fleet}")
    return found


def version_of(program: str, constants: Mapping[str, str]) -> str:
    """A digest of the file's content and of the constants."""
    file, _, name = program.rpartition(":")
    digest = hashlib.sha256(Path(file).read_bytes())
    digest.update(repr((name, sorted(constants.items()))).encode())
    return digest.hexdigest()[:16]


def begin(
    controller: Controller, links: Sequence[Link], choice: ProgramChoice, version: str, seconds: int
) -> list[Link]:
    """Swap all links in one step; the labels note what they dropped before."""
    # how many drops are usual in that time is the difference of two looks
    time.sleep(USUAL)
    later = {link.id: controller.link(link.id) for link in links}
    with ExitStack() as opened:
        swaps = []
        for link in links:
            now = later[link.id]
            kept = opened.enter_context(keep_maps(now))
            labels = {
                **now.labels,
                "version": version,
                "drops": str(now.stats.drops),
                "usual": str((now.stats.drops - link.stats.drops) // USUAL),
            }
            swaps.append(
                Swap(
                    link.id,
                    opened.enter_context(choice.open(keep=kept)),
                    expect_generation=now.generation,
                    labels=labels,
                    keep=[Part.FILTER, Part.COOKIE],
                )
            )
        # twice as long, because looking and confirming take time too
        return controller.transact(swaps, rollback_after=2 * seconds, reason=f"canary {version}")


def harm(link: Link, seconds: int) -> str | None:
    """The fault of a link that waits for the roll-back, if it drops too much."""
    if link.rollback_in is None:
        return None
    lasted = 2 * seconds - link.rollback_in
    more = link.stats.drops - int(link.labels["drops"])
    most = (2 * int(link.labels["usual"]) + ALLOWANCE) * max(1.0, lasted)
    return f"link {link.name or link.id} dropped {more} in {lasted:.0f} s" if more > most else None


def watch(controller: Controller, links: Sequence[Link], seconds: int) -> bool:
    """Look at the counters until the time is over; whether all is well then."""
    while True:
        now = [controller.link(link.id) for link in links]
        for link, before in zip(now, links, strict=True):
            if link.generation != before.generation:
                print(f"link {link.name or link.id} was swapped meanwhile", flush=True)
                return False
            if found := harm(link, seconds):
                print(f"{found}: the module swaps back", flush=True)
                return False
        if all(link.rollback_in is None or link.rollback_in <= seconds for link in now):
            return True
        # counters tell nobody when they change
        time.sleep(INTERVAL)


def canary(
    controller: Controller, fleet: str, choice: ProgramChoice, version: str, seconds: int
) -> int:
    """Begin a canary, or go on with the one that is under way, to its end."""
    links = fleet_of(controller, fleet)
    waiting = [link for link in links if link.rollback_in is not None]
    if waiting:
        # those that were swapped together come to the same end
        links = [link for link in links if link.transaction == waiting[0].transaction]
        if {link.labels.get("version") for link in links} != {version}:
            raise UsageError(f"another canary is under way in fleet {fleet}", "wait for its end")
        print(f"going on with the canary of {len(links)} links", flush=True)
    elif all(link.labels.get("version") == version for link in links):
        print(f"all {len(links)} links have this version")
        return 0
    else:
        links = begin(controller, links, choice, version, seconds)
        print(f"swapped {len(links)} links", flush=True)
    if not watch(controller, links, seconds):
        with controller.watch_links() as changes:
            for _ in changes:
                if not any(_waits(controller, link) for link in links):
                    break
        return 1
    try:
        # one for all; only this swap, and not one that somebody made since
        controller.confirm(links[0].id, expect_generation=links[0].generation)
    except ExpectationError:
        print("too late: the module has swapped back")
        return 1
    print(f"confirmed {len(links)} links")
    return 0


def _waits(controller: Controller, link: Link) -> bool:
    """Whether a link still has the new programs, and waits for the roll-back."""
    try:
        now = controller.link(link.id)
    except LinkGoneError:
        return False
    return now.generation == link.generation and now.rollback_in is not None


def main() -> int:
    """Do what the command line says; the exit status."""
    match sys.argv[1:]:
        case [fleet, program, text, *values] if text.isdecimal() and all("=" in v for v in values):
            seconds = int(text)
            constants = dict(value.split("=", 1) for value in values)
        case _:
            usage = "usage: orchestrator.py FLEET FILE:PROGRAM SECONDS [NAME=VALUE...]"
            print(usage, file=sys.stderr)
            return 2
    try:
        choice = ProgramChoice({Slot.PACKET: parse_source("object", program)}, constants=constants)
        with Controller() as controller:
            version = version_of(program, constants)
            return canary(controller, fleet, choice, version, seconds)
    except IpttctlError as error:
        print(f"orchestrator.py: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"orchestrator.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
