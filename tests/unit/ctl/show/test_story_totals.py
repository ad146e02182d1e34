# SPDX-License-Identifier: GPL-2.0
"""The line of totals of stories: whatever was left out is in it, and nothing else."""

from __future__ import annotations

import pytest

from ipttctl.show.story_totals import StoryTotals, story_totals_line


@pytest.mark.parametrize(
    ("totals", "line"),
    [
        (StoryTotals(), "0 stories told"),
        (StoryTotals(told=1), "1 story told"),
        (StoryTotals(told=3, passed_over=2), "3 stories told, 2 without a drop"),
        (StoryTotals(told=3, open=2), "3 stories told, 2 still open"),
        (
            StoryTotals(told=4, unfinished=2, late=1, unfollowed=1, lost_sight=5),
            (
                "4 stories told, 2 left unfinished for lack of room, 1 event came too late, "
                "1 time a packet was not followed for lack of room, lost sight of 5 packets"
            ),
        ),
    ],
)
def test_the_line(totals: StoryTotals, line: str) -> None:
    assert story_totals_line(totals) == line
