# SPDX-License-Identifier: GPL-2.0
"""The table of docs/owners.md: ``python -m tests.unit.ctl.rules.owners_table`` prints it."""

from __future__ import annotations

from tests.unit.ctl.rules.owners_support import EXAMPLES, read_examples


def owners_table() -> str:
    """A row for each owner: the back ends of its examples, and what its rules are named."""
    backends: dict[str, set[str]] = {}
    said: dict[str, dict[str, None]] = {}
    for file in EXAMPLES:
        for ruleset in read_examples(file):
            for example in ruleset:
                owner, _, says = example.expected.partition(": ")
                if says:
                    nft = example.place.backend == "nft"
                    backends.setdefault(owner, set()).add("nftables" if nft else "iptables")
                    said.setdefault(owner, {})[f"`{says}`"] = None
    rows = [
        f"| {owner} | {', '.join(sorted(backends[owner]))} | {', '.join(said[owner])} |"
        for owner in sorted(said)
    ]
    return "\n".join(["| Owner | Rules of | Examples of what is said |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(owners_table())
