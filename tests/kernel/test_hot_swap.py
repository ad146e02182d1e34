# SPDX-License-Identifier: GPL-2.0
"""A swap, compared with the other ways to make the same change: docs/hot-swap.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hot_swap import ways
from tests.hot_swap.compare import Result, Seen, measure, two_sets
from tests.kernel.support.network import Network

CHANGES = 10


@pytest.fixture(scope="module")
def sets() -> Iterator[tuple[Seen, Seen]]:
    with two_sets() as both:
        yield both


def _measure(net: Network, way: ways.Way, sets: tuple[Seen, Seen]) -> Result:
    result = measure(net, way, sets, CHANGES)
    print(result)
    assert result.changes == CHANGES
    assert result.packets > 20 * CHANGES
    return result


def test_a_swap_loses_doubles_and_tears_nothing(net: Network, sets: tuple[Seen, Seen]) -> None:
    result = _measure(net, ways.swap, sets)
    assert (result.none, result.both, result.torn) == (0, 0, 0)


def test_the_measurement_sees_torn_sets(net: Network, sets: tuple[Seen, Seen]) -> None:
    result = _measure(net, ways.slot_by_slot, sets)
    assert (result.none, result.both) == (0, 0)
    assert result.torn > 0


def test_two_links_see_packets_twice(net: Network, sets: tuple[Seen, Seen]) -> None:
    result = _measure(net, ways.attach_then_detach, sets)
    assert (result.none, result.torn) == (0, 0)
    assert result.both > 0


def test_reloading_the_module_lets_packets_pass_unseen(
    net: Network, sets: tuple[Seen, Seen]
) -> None:
    result = _measure(net, ways.reload, sets)
    assert (result.both, result.torn) == (0, 0)
    assert result.none > 0
