# SPDX-License-Identifier: GPL-2.0
"""Back ends that hold rules, found without making or loading any."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttctl.rules import budget as budget_module
from ipttctl.rules.backends import (
    Holders,
    LegacyTable,
    NftTable,
    backends,
    holders,
    nft_present,
)
from ipttctl.rules.budget import PATIENCE_BURST, PATIENCE_SHARE, Budget, Patience
from tests.unit.ctl.rules.support import Net


def test_nothing(net: Net) -> None:
    found = backends(net.fd)
    assert found.empty
    assert (found.nft, found.legacy) == ((), ())
    assert not net.run("cat", "/proc/thread-self/net/ip_tables_names")


def test_all_of_them(net: Net) -> None:
    net.iptables("-A INPUT -j ACCEPT")
    net.nft(
        "table inet t { chain c { accept; drop; }; }\ntable ip6 filter { chain mine { drop; }; }"
    )
    net.iptables("-A FORWARD -p IPv4 -j DROP", "ebtables-nft")
    net.iptables("-t raw -A OUTPUT -j ACCEPT", "iptables-legacy")
    net.iptables("-N mine", "ip6tables-legacy")
    found = backends(net.fd)
    assert set(found.nft) == {
        NftTable(2, "filter", 1, iptables=True),
        NftTable(1, "t", 2, iptables=False),
        NftTable(10, "filter", 1, iptables=False),
        NftTable(7, "filter", 1, iptables=True),
    }
    assert set(found.legacy) == {
        LegacyTable(2, "raw", entries=4, hooks=2),
        LegacyTable(10, "filter", entries=6, hooks=3),
    }
    assert not found.empty
    assert net.run("cat", "/proc/thread-self/net/ip_tables_names") == "raw\n"


def test_tables_without_rules(net: Net) -> None:
    net.nft("add table inet t")
    net.run("iptables-legacy", "-S")
    found = backends(net.fd)
    assert found.empty
    assert [*(t.rules for t in found.nft), *(t.rules for t in found.legacy)] == [0, 0]


def test_who_holds_rules(net: Net) -> None:
    assert holders(net.fd) == Holders(legacy=False, nft=False)
    net.nft("add table inet t")
    net.run("iptables-legacy", "-S")
    assert holders(net.fd) == Holders(legacy=False, nft=False)
    net.iptables("-A INPUT -j ACCEPT")
    assert holders(net.fd) == Holders(legacy=False, nft=True)
    net.iptables("-A INPUT -j ACCEPT", "ip6tables-legacy")
    assert holders(net.fd) == Holders(legacy=True, nft=True)


@pytest.mark.parametrize(
    ("loaded", "modules", "built_in", "there"),
    [
        (True, True, "", True),
        (False, False, "", True),
        (False, True, "kernel/net/netfilter/nf_tables.ko\n", True),
        (False, True, "kernel/net/netfilter/nfnetlink.ko\n", False),
        (False, True, None, False),
    ],
)
def test_nf_tables_that_is_not_loaded(
    tmp_path: Path, loaded: bool, modules: bool, built_in: str | None, there: bool
) -> None:
    if loaded:
        (tmp_path / "nf_tables").mkdir()
    if modules:
        (tmp_path / "modules").touch()
    if built_in is not None:
        (tmp_path / "modules.builtin").write_text(built_in)
    assert nft_present(tmp_path / "nf_tables", tmp_path / "modules", tmp_path) is there


def test_a_share_of_time() -> None:
    now = 100.0
    budget = Budget(share=0.25, burst=2.0, clock=lambda: now)
    budget.spend(2.0)
    assert budget.wait == 0
    budget.spend(1.0)
    assert budget.wait == 4.0
    now += 3.0
    assert budget.wait == 1.0
    now += 1000.0
    budget.spend(2.0)
    assert budget.wait == 0
    with budget.computing():
        while not budget.wait:
            budget.spend(0.01)


def test_what_is_left_of_a_share() -> None:
    now = 100.0
    budget = Budget(share=0.25, burst=2.0, clock=lambda: now)
    assert budget.left == 2.0
    budget.spend(1.5)
    assert budget.left == 0.5
    budget.spend(1.5)
    assert budget.left == 0
    now += 8.0
    assert budget.left == 1.0
    now += 1000.0
    assert budget.left == 2.0


def test_patience_is_used_up_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "_MOST_NAMESPACES", 2)
    now = 100.0
    patience = Patience(clock=lambda: now)
    patience.spend(1, PATIENCE_BURST)
    assert patience.left(1) == 0
    assert patience.left(2) == PATIENCE_BURST
    now += 1.0
    assert patience.left(1) == pytest.approx(PATIENCE_SHARE)
    patience.spend(1, 1.0)
    for cookie in (2, 3):
        patience.spend(cookie, 1.0)
    # the one that was waited for longest ago is forgotten
    assert patience.left(1) == PATIENCE_BURST
    assert patience.left(2) == PATIENCE_BURST - 1.0
