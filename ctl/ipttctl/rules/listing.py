# SPDX-License-Identifier: GPL-2.0
"""Rules listed by nft and by iptables and its kin, each line matched with its rule beyond doubt.

The owner of a namespace chooses names and comments, of nearly any bytes, and the programs print
them as they are: a line can be forged. So a listing counts only as a whole: it has
exactly one line for each rule, and no line of another form. Every rule prints at least one line of
the expected form, so that a forged line is always one too many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from ipttctl.escape import Escaped, escape
from ipttctl.families import NFT_FAMILIES, NfFamily
from ipttctl.rules.confine import ListingError
from ipttctl.rules.messages import RawRule

Run = Callable[[str, Sequence[str]], bytes]
"""Runs a program by name with arguments; its output."""

#: names that nft takes for nothing but a name
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
#: names that stand for themselves on a line of iptables
_PLAIN: Final = re.compile(r"[!-,.-~][!-~]*")

_IPTABLES: Final[Mapping[int, str]] = {
    NfFamily.IPV4: "iptables-nft",
    NfFamily.IPV6: "ip6tables-nft",
}
_SAVE: Final[Mapping[int, str]] = {
    NfFamily.BRIDGE: "ebtables-nft-save",
    NfFamily.ARP: "arptables-nft-save",
}
_CHAIN: Final = re.compile(r":(\S+) (\S+)(?: \[\d+:\d+\])?")
_UNEXPECTED: Final = "has lines that cannot be told apart"


def _remarks(userdata: bytes) -> Iterator[bytes]:
    """The remarks that nft keeps with a rule, such as its comment (libnftnl's udata TLVs)."""
    place = 0
    while place + 1 < len(userdata):
        end = place + 2 + userdata[place + 1]
        yield userdata[place + 2 : end]
        place = end


def by_nft(
    run: Run, family: int, table: str, chain: str, rules: Sequence[RawRule]
) -> list[Escaped]:
    """The rules of a chain in nft's syntax; ``rules`` are all that it has, in their order.

    Raises:
        ListingError: nft cannot list it, or lists something else.
    """
    if family not in NFT_FAMILIES or not (_WORD.fullmatch(table) and _WORD.fullmatch(chain)):
        raise ListingError("nft has no words for the chain's name")
    # a rule that is nothing but a comment looks like the chain's
    if any(b"\n" in value for rule in rules for value in _remarks(rule.userdata)):
        raise ListingError("a comment has several lines")
    where = (NFT_FAMILIES[family], table, chain)
    lines = _lines(run("nft", ["-a", "-s", "list", "chain", *where]))
    # table X {, chain Y {, its hook; the rules; }, }
    begin = len(lines) - len(rules) - 2
    head, listed, tail = lines[:begin], lines[begin:-2], lines[-2:]
    if begin < 2 or tail != ["\t}", "}"] or not _is_head(head, where):
        raise ListingError(f"the output of nft {_UNEXPECTED}")
    found = []
    for line, rule in zip(listed, rules, strict=True):
        text, mark, handle = line.rpartition(" # handle ")
        if not (mark and handle == str(rule.handle) and text.startswith("\t\t")):
            raise ListingError(f"the output of nft {_UNEXPECTED}")
        found.append(escape(text[2:].rstrip()))
    return found


def _is_head(head: Sequence[str], where: tuple[str, str, str]) -> bool:
    """Whether lines begin a chain: table, chain, at most one comment, at most one hook."""
    family, table, chain = where
    rest = [*head[2:]]
    for word in ('\t\tcomment "', "\t\ttype "):
        if rest and rest[0].startswith(word):
            del rest[0]
    return (
        not rest
        and head[0].startswith(f"table {family} {table} {{")
        and head[1].startswith(f"\tchain {chain} {{")
    )


def by_iptables(
    run: Run, family: int, table: str, chain: str, *, in_chain: int, in_table: int
) -> list[Escaped]:
    """The rules of a chain of iptables-nft or its kin in their order.

    ``in_chain`` and ``in_table`` are the numbers of rules that the kernel has.

    Raises:
        ListingError: the program cannot list them, or lists something else.
    """
    if not _PLAIN.fullmatch(chain):
        raise ListingError("the name of the chain is not plain")
    if program := _IPTABLES.get(family):
        lines = _lines(run(program, ["-t", table, "-S", chain]))
        if lines and re.match("-[NP] ", lines[0]):
            del lines[0]
        return _of_chain(program, lines, chain, in_chain)
    program = _SAVE[family]
    # arptables has one table only
    arguments = ["-t", table] if family == NfFamily.BRIDGE else []
    lines = [line for line in _lines(run(program, arguments)) if not line.startswith("# ")]
    if table not in {line[1:] for line in lines if line.startswith("*")}:
        raise ListingError(f"{program} does not list table {table}")
    rules = [line for line in lines if line.startswith("-A ")]
    others = [line for line in lines if line not in {f"*{table}", "COMMIT"} and line not in rules]
    if len(rules) != in_table or not all(_CHAIN.fullmatch(line) for line in others if line):
        raise ListingError(f"the output of {program} {_UNEXPECTED}")
    ours = [line for line in rules if line == f"-A {chain}" or line.startswith(f"-A {chain} ")]
    return _of_chain(program, ours, chain, in_chain)


def _of_chain(program: str, lines: Sequence[str], chain: str, count: int) -> list[Escaped]:
    prefix = f"-A {chain} "
    if len(lines) != count or not all(f"{line} ".startswith(prefix) for line in lines):
        raise ListingError(f"the output of {program} {_UNEXPECTED}")
    return [escape(line.rstrip()) for line in lines]


def by_save(output: bytes, table: str, entries: int, hooks: int) -> dict[str, list[Escaped]]:
    """The rules of a legacy table by chain, from what iptables-legacy-save prints.

    ``entries`` and ``hooks`` are the numbers of entries and of built-in chains that the kernel has.
    A built-in chain has an entry for its policy, another one two, for its beginning and its end,
    and the table one for its end: what is forged makes them too many.

    Raises:
        ListingError: it is something else.
    """
    lines = [line for line in _lines(output) if not line.startswith("# ")]
    if not lines or lines[0] != f"*{table}" or lines[-1] != "COMMIT":
        raise ListingError("the output of iptables-legacy-save is no table")
    chains: dict[str, list[Escaped]] = {}
    users = 0
    expected = hooks + 1
    for line in lines[1:-1]:
        if line.startswith("-A "):
            chain = line[3:].partition(" ")[0]
            if chain not in chains:
                raise ListingError(f"the output of iptables-legacy-save {_UNEXPECTED}")
            chains[chain].append(escape(line.rstrip()))
            expected += 1
            continue
        match = _CHAIN.fullmatch(line)
        if match is None or match[1] in chains:
            raise ListingError(f"the output of iptables-legacy-save {_UNEXPECTED}")
        chains[match[1]] = []
        if match[2] == "-":
            users += 1
    if expected + 2 * users != entries or len(chains) - users != hooks:
        raise ListingError(f"the output of iptables-legacy-save {_UNEXPECTED}")
    return chains


def _lines(output: bytes) -> list[str]:
    """The lines of an output; only a line feed ends one."""
    text = output.decode(errors="surrogateescape")
    return text.removesuffix("\n").split("\n") if text else []
