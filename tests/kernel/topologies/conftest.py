# SPDX-License-Identifier: GPL-2.0
"""The three hosts, and who watches their packets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ipttctl.link.controller import Controller
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.network import Namespace, Network, network
from tests.kernel.support.three_hosts import COUNTING, Here, Watch
from tests.kernel.support.topologies import Watched, nft, watching


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network("w") as made:
        for where in (made.left, made.router, made.right):
            nft(where, f"table ip seen {{ {COUNTING} }}")
        # the neighbours are known from here on
        made.left.ping("10.77.2.2")
        yield made


@pytest.fixture
def watch(controller: Controller, make_program: MakeProgram) -> Watch:
    def made(*namespaces: Namespace, **options: Any) -> AbstractContextManager[Watched]:
        return watching(controller, make_program, *namespaces, **options)

    return made


@pytest.fixture
def here(net: Network, watch: Watch) -> Here:
    """Watches the three namespaces."""
    return lambda: watch(net.left, net.router, net.right)
