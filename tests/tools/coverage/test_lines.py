# SPDX-License-Identifier: GPL-2.0
"""The report of lines that did not run."""

from __future__ import annotations

import pytest

from tests.coverage.lines import FileLines, percentage, ranges, table


def file(name: str, ran: set[int], missed: set[int]) -> FileLines:
    return FileLines(name, frozenset(ran), frozenset(missed))


@pytest.mark.parametrize(
    ("ran", "missed", "text"),
    [
        (set(), set(), ""),
        ({1, 2}, set(), ""),
        (set(), {7}, "7"),
        (set(), {7, 9}, "7-9"),
        ({8}, {7, 9}, "7, 9"),
        ({1, 20}, {3, 4, 6, 19, 30}, "3-19, 30"),
    ],
)
def test_only_lines_that_ran_part_a_range(ran: set[int], missed: set[int], text: str) -> None:
    assert ranges(file("a", ran, missed)) == text


def test_percentage_counts_lines_not_files() -> None:
    assert percentage([file("a", {1}, set()), file("b", {1, 2}, {3})]) == 75


def test_nothing_measured_is_not_enough() -> None:
    assert percentage([]) == 0
    assert percentage([file("a", set(), set())]) == 0


def test_table_names_files_in_order_and_sums_up() -> None:
    lines = table("both", [file("b", {1}, {2}), file("a/long", {1, 2}, set())]).splitlines()
    assert [line.split() for line in lines] == [
        ["file", "lines", "not", "run", "%", "which"],
        ["a/long", "2", "0", "100"],
        ["b", "2", "1", "50", "2"],
        ["both", "4", "1", "75.0"],
    ]
