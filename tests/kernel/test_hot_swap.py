# SPDX-License-Identifier: GPL-2.0
"""A swap, compared with the other ways to make the same change: docs/hot-swap.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hot_swap import counts, verdicts, ways
from tests.hot_swap.compare import Result, Seen, measure, two_sets
from tests.kernel.support.network import Network
from tests.kernel.support.objects import BPF, compile_object

CHANGES = 10
#: `make hot-swap` makes 10,000
IN_A_ROW = 300


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


def test_swaps_in_a_row_lose_double_and_tear_nothing(net: Network, sets: tuple[Seen, Seen]) -> None:
    """Each is made while packets may still meet the sets of many before it."""
    result = measure(net, ways.swap, sets, IN_A_ROW, in_a_row=True)
    print(result)
    assert (result.changes, result.none, result.both, result.torn) == (IN_A_ROW, 0, 0, 0)
    assert result.packets > CHANGES


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


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_object(BPF / "count.c", tmp_path_factory.mktemp("objects"))


def _remembered(net: Network, name: str, counting: Path) -> counts.Remembered:
    found = counts.measure(net, counts.WAYS[name], counting, CHANGES)
    print(found)
    assert found.changes == CHANGES
    assert found.packets > 20 * CHANGES
    return found


def test_a_swap_that_keeps_maps_forgets_nothing(net: Network, counting: Path) -> None:
    assert _remembered(net, "`swap --keep-maps`", counting).forgotten == 0


@pytest.mark.parametrize("name", ["`swap`", "`map copy`, then `swap`"])
def test_other_swaps_forget(net: Network, counting: Path, name: str) -> None:
    assert _remembered(net, name, counting).forgotten > 0


@pytest.mark.parametrize("name", verdicts.WAYS)
def test_every_packet_is_decided_over(net: Network, name: str) -> None:
    """Promoted programs have been compared before; with copied maps they forget next to nothing."""
    found = verdicts.measure(net, verdicts.WAYS[name], CHANGES)
    print(found)
    assert found.packets > 20 * CHANGES
    assert found.undecided == 0
    shadowed = "--shadow" in name
    assert (found.compared >= verdicts.BETWEEN) == shadowed
