# SPDX-License-Identifier: GPL-2.0
"""Three hosts in a row, each hook of which is seen, and what tests change of them meanwhile.

    left                 router                  right
10.77.1.2 --- veth --- 10.77.1.1
                       10.77.2.1 --- veth --- 10.77.2.2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, TypeAlias

from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Namespace, ip_batch
from tests.kernel.support.topologies import Watched, nft

PORT: Final = 10
#: at every hook of IP a chain that counts, so that each is seen
COUNTING: Final = "".join(
    f"chain {hook} {{ type filter hook {hook} priority 10; counter; }}\n"
    for hook in ("prerouting", "input", "forward", "output", "postrouting")
)
SENT: Final = ["output", "postrouting", "to eth0", "from r1", "prerouting"]
FORWARDED: Final = [*SENT, "forward", "postrouting", "to r2", "from eth0", "prerouting"]
ARRIVED: Final = [*FORWARDED, "input"]

Watch: TypeAlias = Callable[..., AbstractContextManager[Watched]]
"""Watches some namespaces."""
Here: TypeAlias = Callable[[], AbstractContextManager[Watched]]
"""Watches the three."""


@contextmanager
def rules(where: Namespace, table: str, text: str, family: str = "ip") -> Iterator[None]:
    """A table of nftables meanwhile."""
    nft(where, f"table {family} {table} {{ {text}\n}}")
    try:
        yield
    finally:
        where.run("nft", "delete", "table", family, table)


@contextmanager
def devices(*made: tuple[Namespace, str, list[str]]) -> Iterator[None]:
    """Devices of namespaces meanwhile, each by its name and the commands that make it."""
    with ExitStack() as stack:
        for where, name, commands in made:
            ip_batch(where.name, *commands)
            stack.callback(ip_batch, where.name, f"link delete {name}")
        yield


def answered(where: Namespace, address: str) -> None:
    """Ping until there is an answer: the ways there are known from then on."""
    wait_for(
        lambda: "1 received" in where.ping(address, check=False),
        timeout=60,
        what=f"an answer from {address}",
    )
