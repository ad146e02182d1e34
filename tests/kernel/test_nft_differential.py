# SPDX-License-Identifier: GPL-2.0
"""Random nftables rulesets and packets, without chain links and with them: all is the same.

A case is named by the seed and its number: `IPTT_SEED=1 IPTT_NFT_FIRST=117 IPTT_NFT_CASES=1` runs
one again, and a run that was broken off goes on at `IPTT_NFT_FIRST`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from ipttctl.host.walk import observing
from ipttctl.link.controller import Controller
from ipttctl.verify.run import Observed, Runner, cases
from ipttctl.verify.words import Vocabulary
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import mark_log

CASES = int(os.environ.get("IPTT_NFT_CASES", "20"))
FIRST = int(os.environ.get("IPTT_NFT_FIRST", "0"))
SEED = int(os.environ.get("IPTT_SEED", "1"))

#: cases that one test reports together
TOGETHER = 30

#: fewer cases need not meet everything
ENOUGH = 60


@pytest.fixture
def chain_links(controller: Controller, make_program: MakeProgram) -> Observed:
    """Links at all chains of the router of each case, and at its spine."""
    return partial(observing, controller, make_program(asm.returning(1)))


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(Vocabulary.FULL) as made:
        yield made


@pytest.fixture(scope="module")
def evaluated() -> Counter[str]:
    """Rules that counted packets, by the kinds of their expressions."""
    return Counter()


@pytest.mark.parametrize("first", range(FIRST, FIRST + CASES, TOGETHER))
def test_the_same_with_and_without_links(
    first: int, runner: Runner, chain_links: Observed, evaluated: Counter[str]
) -> None:
    for case in cases(Vocabulary.FULL, SEED, min(TOGETHER, FIRST + CASES - first), first):
        mark_log(f"case: {case}")
        result = runner.run(case, chain_links)
        if result.passing:
            mark_log(f"differed once: {'; '.join(result.passing)}")
        assert not result.differences, result.report()
        assert not case.commits or result.with_links.commits
        for rule in result.with_links.rules:
            if rule.packets:
                evaluated.update({name for name, _ in rule.expressions})


def test_all_kinds_of_expressions_were_evaluated(runner: Runner, evaluated: Counter[str]) -> None:
    if CASES < ENOUGH:
        pytest.skip(f"{CASES} cases need not meet everything")
    known = {"bitwise", "byteorder", "cmp", "ct", "dup", "dynset", "exthdr", "fib", "hash"}
    known |= {"immediate", "limit", "log", "lookup", "match", "meta", "nat", "notrack", "numgen"}
    known |= {"objref", "payload", "queue", "quota", "range", "redir", "reject", "rt", "synproxy"}
    known |= {"target"}
    missing = known - evaluated.keys()
    assert not {name for name in missing if name not in str(runner.grammar.lacking)}
