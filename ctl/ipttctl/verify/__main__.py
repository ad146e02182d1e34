# SPDX-License-Identifier: GPL-2.0
"""Run cases without links, to see that they are the same each time: for people who change them.

python -m ipttctl.verify --vocabulary full --seed 3 --cases 20 --first 0
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

from ipttctl.verify.run import Runner, cases
from ipttctl.verify.words import Vocabulary


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases, print those that differ, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ipttctl.verify", description=__doc__)
    names = [vocabulary.value for vocabulary in Vocabulary]
    parser.add_argument("--vocabulary", choices=names, default=Vocabulary.BUILTIN.value)
    for name, default in (("seed", 1), ("cases", 20), ("first", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args(arguments)
    began, failed = time.monotonic(), 0
    with Runner(Vocabulary(chosen.vocabulary)) as runner:
        if runner.grammar.lacking:
            print("not taken here:", *runner.grammar.lacking, sep="\n  ")
        for case in cases(runner.vocabulary, chosen.seed, chosen.cases, chosen.first):
            result = runner.run(case, lambda _: nullcontext())
            if result.differences:
                failed += 1
                print(result.report())
    took = time.monotonic() - began
    print(f"{chosen.cases} cases in {took:.1f} s, {failed} of them with differences")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
