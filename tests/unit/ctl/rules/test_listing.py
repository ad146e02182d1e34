# SPDX-License-Identifier: GPL-2.0
"""Listings: each line matched with its rule, and nothing taken from one that is forged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.escape import escape
from ipttctl.rules import listing
from ipttctl.rules.confine import ListingError
from ipttctl.rules.listing import Run
from tests.unit.ctl.rules.support import rule

#: what the owner of a namespace may put into names and comments
EVIL = st.lists(
    st.sampled_from(
        [
            "a",
            " ",
            "\n",
            "\t\t",
            '"',
            "}",
            "\\",
            "-A c ",
            " # handle 2",
            " # handle 1",
            ":x - [0:0]",
        ]
    ),
    max_size=12,
).map("".join)


def printing(output: str) -> Run:
    """A program that prints something, whatever it is asked."""

    def run(name: str, arguments: Sequence[str]) -> bytes:
        del name, arguments
        return output.encode(errors="surrogateescape")

    return run


def nft_output(texts: Sequence[str], head: str = "") -> str:
    rules = "".join(f"\t\t{text} # handle {n}\n" for n, text in enumerate(texts, 1))
    return f"table inet t {{\n\tchain c {{ # handle 9\n{head}{rules}\t}}\n}}\n"


def test_nft() -> None:
    head = '\t\tcomment "x"\n\t\ttype filter hook input priority filter; policy accept;\n'
    output = nft_output(["counter accept", 'accept comment "caf\udce9 # handle 7"'], head)
    assert listing.by_nft(printing(output), 1, "t", "c", [rule(1), rule(2)]) == [
        "counter accept",
        r'accept comment "caf\xe9 # handle 7"',
    ]


@pytest.mark.parametrize(
    "output",
    [
        "",
        "nonsense",
        nft_output([]),
        nft_output(["accept"]),
        nft_output(["accept"] * 3),
        nft_output(["accept", "drop"]).replace("table inet t", "table inet u"),
        nft_output(["accept", "drop"]).replace("handle 2", "handle 1"),
        nft_output(["accept", "drop"]).replace(" # handle 1\n", "\n"),
        nft_output(["accept", "drop"], "\t\tfoo\n"),
        nft_output(["accept", "drop"]) + "more\n",
        nft_output(["accept", "drop"])[:-3],
    ],
)
def test_something_else_than_the_chain(output: str) -> None:
    with pytest.raises(ListingError, match="cannot be told apart"):
        listing.by_nft(printing(output), 1, "t", "c", [rule(1), rule(2)])


@pytest.mark.parametrize("name", ["a b", "", "a;flush ruleset", "-f", "a\n", "1a", "\udce9", "{"])
def test_names_that_mean_something_to_nft(name: str) -> None:
    for table, chain in (("t", name), (name, "c")):
        with pytest.raises(ListingError, match="has no words for the chain's name"):
            listing.by_nft(printing(nft_output([])), 1, table, chain, [])


@given(st.lists(EVIL, max_size=4))
def test_nft_is_right_or_refused(words: list[str]) -> None:
    """A rule prints its own words, and whatever its owner put between them."""
    texts = [f"log {word} drop" for word in words]
    with suppress(ListingError):
        rules = [rule(n) for n in range(1, len(texts) + 1)]
        found = listing.by_nft(printing(nft_output(texts)), 1, "t", "c", rules)
        assert found == [escape(text) for text in texts]


def test_a_rule_that_looks_like_the_comment_of_its_chain() -> None:
    text = 'comment "x"\n\t\tip saddr 10.0.0.1 drop comment "'
    forged = rule(1, userdata=b'\0\x05x"\nip\0')
    with pytest.raises(ListingError, match="several lines"):
        listing.by_nft(printing(nft_output([text])), 1, "t", "c", [forged])


# --- iptables -------------------------------------------------------------------------------------


def test_iptables() -> None:
    output = "-P INPUT ACCEPT\n-A INPUT -j ACCEPT\n-A INPUT\n"
    found = listing.by_iptables(printing(output), 2, "filter", "INPUT", in_chain=2, in_table=9)
    assert found == ["-A INPUT -j ACCEPT", "-A INPUT"]


@pytest.mark.parametrize("chain", ["a b", "", "-j", "a\n", "caf\udce9"])
def test_names_that_are_not_plain(chain: str) -> None:
    with pytest.raises(ListingError, match="is not plain"):
        listing.by_iptables(printing(""), 2, "filter", chain, in_chain=0, in_table=0)


@given(st.lists(EVIL, max_size=4))
def test_iptables_is_right_or_refused(words: list[str]) -> None:
    texts = [f"-A c -i {word} -j DROP" for word in words]
    output = "".join(f"{line}\n" for line in ["-N c", *texts])
    with suppress(ListingError):
        count = len(texts)
        found = listing.by_iptables(
            printing(output), 2, "filter", "c", in_chain=count, in_table=count
        )
        assert found == [escape(text.rstrip()) for text in texts]


def test_ebtables() -> None:
    output = "# x\n*filter\n:INPUT ACCEPT\n:a DROP\n-A INPUT -j a\n-A a -j DROP\n# y\n"
    run = printing(output)
    assert listing.by_iptables(run, 7, "filter", "a", in_chain=1, in_table=2) == ["-A a -j DROP"]
    for in_chain, in_table in ((1, 3), (2, 2)):
        with pytest.raises(ListingError, match="cannot be told apart"):
            listing.by_iptables(run, 7, "filter", "a", in_chain=in_chain, in_table=in_table)
    with pytest.raises(ListingError, match="does not list table nat"):
        listing.by_iptables(run, 7, "nat", "a", in_chain=1, in_table=2)


# --- legacy tables --------------------------------------------------------------------------------


def saved(chains: dict[str, list[str]], users: dict[str, list[str]]) -> tuple[bytes, int]:
    """The output of iptables-legacy-save, and how many entries the kernel has."""
    lines = [f":{name} ACCEPT [0:0]" for name in chains] + [f":{name} - [0:0]" for name in users]
    for name, rules in (*chains.items(), *users.items()):
        lines += [f"-A {name} {text}".rstrip() for text in rules]
    entries = len(chains) + 2 * len(users) + 1
    entries += sum(len(rules) for rules in (*chains.values(), *users.values()))
    return "".join(f"{x}\n" for x in ["# head", "*filter", *lines, "COMMIT", "# tail"]).encode(
        errors="surrogateescape"
    ), entries


def test_a_legacy_table() -> None:
    output, entries = saved({"INPUT": ["-j ACCEPT", "-j a"], "OUTPUT": []}, {"a": ["-j DROP"]})
    assert listing.by_save(output, "filter", entries, 2) == {
        "INPUT": ["-A INPUT -j ACCEPT", "-A INPUT -j a"],
        "OUTPUT": [],
        "a": ["-A a -j DROP"],
    }
    for wrong in (
        (output, "nat", entries, 2),
        (output, "filter", entries + 1, 2),
        (b"", "a", 1, 0),
    ):
        with pytest.raises(ListingError):
            listing.by_save(*wrong)


@given(st.lists(EVIL, max_size=3), st.lists(EVIL, max_size=3), EVIL)
def test_a_legacy_table_is_right_or_refused(
    of_input: list[str], of_user: list[str], name: str
) -> None:
    texts = {
        "c": [f"-i {word} -j DROP" for word in of_input],
        name or "d": [f"-i {word} -j DROP" for word in of_user],
    }
    output, entries = saved({"c": texts["c"]}, {name or "d": texts[name or "d"]})
    if name == "c":
        return
    with suppress(ListingError):
        found = listing.by_save(output, "filter", entries, 1)
        assert found == {
            chain: [escape(f"-A {chain} {text}") for text in rules]
            for chain, rules in texts.items()
        }


def test_a_comment_of_nine_letters() -> None:
    """The length of such a comment, with its NUL, is the byte of a line feed."""
    text = 'counter comment "the first"'
    commented = rule(1, userdata=b"\0\x0athe first\0")
    assert listing.by_nft(printing(nft_output([text])), 1, "t", "c", [commented]) == [escape(text)]
