# SPDX-License-Identifier: GPL-2.0
"""The fuzzer's guidance: the corpus, KCOV's buffer, the module's sentences."""

from __future__ import annotations

import fcntl
import mmap
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipttproto import Acknowledgement, Command
from tests.fuzz import kcov, refusals
from tests.fuzz.campaign import Campaign
from tests.fuzz.corpus import Corpus
from tests.fuzz.kcov import Kcov
from tests.fuzz.request import Node, Request
from tests.fuzz.world import World


def test_a_request_is_kept_when_it_reached_something_new() -> None:
    corpus = Corpus()
    first, second = Request(Command.GET, []), Request(Command.STATS, [])
    assert corpus.pick(random.Random(1)) is None
    assert corpus.consider(first, {1, 2})
    assert not corpus.consider(second, {2})
    assert not corpus.consider(second, set())
    assert corpus.consider(second, {2, 3})
    assert (len(corpus), corpus.places) == (2, 3)


def test_what_is_kept_is_not_changed_by_who_takes_it_up() -> None:
    corpus = Corpus()
    request = Request(Command.GET, [Node(1, b"\1\0\0\0")])
    corpus.consider(request, {1})
    request.nodes.clear()
    for seed in range(3):
        taken = corpus.pick(random.Random(seed))
        assert taken
        assert len(taken.nodes) == 1
        taken.nodes.clear()


def test_later_requests_are_taken_up_more_often() -> None:
    corpus = Corpus()
    for number in range(10):
        corpus.consider(Request(number, []), {number})
    pick = random.Random(1)
    taken = [found.command for _ in range(1000) if (found := corpus.pick(pick))]
    assert set(taken) == set(range(10))
    assert taken.count(9) > 3 * taken.count(0)


class ToyTarget:
    """A target that requires several faults at once: guidance finds them and chance hardly does."""

    def __init__(self) -> None:
        self.passed: set[int] = set()

    @contextmanager
    def trace(self) -> Iterator[set[int]]:
        """The stand-in for ``Kcov.trace``."""
        found: set[int] = set()
        self.passed = set()
        yield found
        found |= self.passed

    def send(self, request: Request, sequence: int) -> None:
        """Record a place for each requirement that holds, up to the first that does not."""
        del sequence
        wanted = (
            request.command == Command.GET,
            not request.capable,
            request.version != 1,
            len(request.nodes) > 2,
            bool(request.tail),
        )
        self.passed = {0}
        for place, holds in enumerate(wanted, 1):
            if not holds:
                break
            self.passed.add(place)

    def answer(self, request: Request, sequence: int, learn: object) -> Acknowledgement:
        """Refuse the request."""
        del request, learn
        return Acknowledgement(sequence, 22, "no")


def test_guidance_goes_deeper_than_chance() -> None:
    def depth(*, guided: bool) -> int:
        target = ToyTarget()
        trace = target.trace if guided else None
        campaign = Campaign(target, World((1,)), 1, trace)  # type: ignore[arg-type]  # a toy
        deepest = 0
        for _ in range(1500):
            campaign.run(1)
            deepest = max(deepest, *target.passed)
        assert campaign.tally.errnos[22] == 1500
        assert (campaign.corpus.places > 0) == guided
        return deepest

    assert depth(guided=True) > depth(guided=False)


def test_kcov_gives_the_addresses_that_were_passed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The device is a file here; the test writes the kernel's data to the buffer."""
    device = tmp_path / "kcov"
    device.write_bytes(bytes(kcov._WORDS * 8))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        fcntl, "ioctl", lambda _, request, argument: asked.append((request, argument))
    )
    with Kcov(device) as opened, device.open("r+b") as file:
        kernel = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        kernel[0:3] = memoryview(b"".join(n.to_bytes(8, "little") for n in (2, 7, 7))).cast("Q")
        with opened.trace() as passed:
            assert kernel[0] == 0
            for place, word in enumerate(
                (3, 0xFFFFFFFFC0001000, 0xFFFFFFFFC0001000, 0xFFFFFFFFC0002000)
            ):
                kernel[place] = word
            assert passed == set()
        assert passed == {0xFFFFFFFFC0001000, 0xFFFFFFFFC0002000}
        kernel.release()
    assert asked == [(0x80086301, kcov._WORDS), (0x6364, 0), (0x6365, 0)]


def test_sentences_of_the_module() -> None:
    found = refusals.sentences()
    assert "there is no such link" in found
    # joined from two literals, with brackets and a semicolon inside
    assert any(s.startswith("the program is made for another attach type") for s in found)
    assert all(len(sentence) > 10 for sentence in found)
    calls = sum(path.read_text().count("_SET_ERR_MSG") for path in refusals.SOURCES.glob("*.c"))
    # a few are said in several places
    assert len(found) <= calls < len(found) + 10


def test_sentences_that_no_message_brings_about_are_the_modules() -> None:
    """A sentence that has changed must be checked again."""
    assert refusals.NOT_BY_A_MESSAGE.keys() <= refusals.sentences()
    assert refusals.SELDOM.keys() <= refusals.sentences()
    for name in refusals.SELDOM.values():
        assert (refusals.SOURCES.parent / "tests" / "kernel" / name).exists()
    assert {refusals.ONLY_WITH_OVERRIDE, refusals.WHERE_A_DUMP_BEGINS} <= refusals.sentences()


def test_sentences_are_found_however_they_are_broken(tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text(
        'NL_SET_ERR_MSG(extack, "one; (two)");\n'
        'NL_SET_ERR_MSG_ATTR(info->extack, attrs[A],\n\t"three "\n\t"four \\"x\\"");\n'
        'pr_warn("five");\n'
    )
    assert refusals.sentences(tmp_path) == {"one; (two)", 'three four "x"'}
