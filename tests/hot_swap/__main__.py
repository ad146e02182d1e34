# SPDX-License-Identifier: GPL-2.0
"""Print the tables of docs/hot-swap.md: ``make hot-swap``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.hot_swap import counts, verdicts
from tests.hot_swap.compare import measure, two_sets
from tests.hot_swap.ways import WAYS, swap
from tests.kernel.support.kernel import unload_module
from tests.kernel.support.network import network
from tests.kernel.support.objects import BPF, compile_object


def main() -> int:
    """Compare all ways and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--in-a-row", type=int, default=10_000)
    given = parser.parse_args()
    changes = given.changes
    print(f"Kernel {os.uname().release}, {changes} changes each.\n")
    print("| The change is made by | Packets | seen by none | by both | by a torn set | longest |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    with network() as net, two_sets() as sets:
        row = f"`swap`, {given.in_a_row} in a row", swap, given.in_a_row
        for name, way, count in (row, *((name, way, changes) for name, way in WAYS.items())):
            result = measure(net, way, sets, count, in_a_row=count == given.in_a_row)
            print(
                f"| {name} | {result.packets} | {result.none} | {result.both} | {result.torn} |"
                f" {result.longest:.2f} s |",
                flush=True,
            )
    print("\n| The change is made by | Packets | counted | forgotten | longest |")
    print("|---|---:|---:|---:|---:|", flush=True)
    with network() as net, TemporaryDirectory() as directory:
        file = compile_object(BPF / "count.c", Path(directory))
        for name, replace in counts.WAYS.items():
            found = counts.measure(net, replace, file, changes)
            print(
                f"| {name} | {found.packets} | {found.counted} | {found.forgotten} |"
                f" {found.longest:.2f} s |",
                flush=True,
            )
    print("\n| The change is made by | Packets | undecided | forgotten | compared | longest |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    with network() as net:
        for name, decide in verdicts.WAYS.items():
            verdict = verdicts.measure(net, decide, changes)
            print(
                f"| {name} | {verdict.packets} | {verdict.undecided} | {verdict.forgotten} |"
                f" {verdict.compared} | {verdict.longest:.2f} s |",
                flush=True,
            )
    unload_module()
    return 0


if __name__ == "__main__":
    sys.exit(main())
