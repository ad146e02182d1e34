# SPDX-License-Identifier: GPL-2.0
"""Stories of packets in parts: fragments, and segments of what is too big for a device."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from ipttctl.stories.model import Story
from tests.kernel.support.kernel import kernel_version, wait_for
from tests.kernel.support.network import Network
from tests.kernel.support.three_hosts import (
    PORT,
    Here,
    Watch,
    rules,
)
from tests.kernel.support.topologies import (
    end_text,
    listener,
    nft_counts,
    send,
    statistic,
    text,
)


def parts(story: Story) -> list[Story]:
    """A story with all copies and parts."""
    return [story, *(part for branch in story.shown_branches() for part in parts(branch))]


@pytest.mark.parametrize("tracked", [False, True])
def test_fragments(net: Network, here: Here, tracked: bool) -> None:
    """They are put together where connections are tracked, and where they arrive."""
    chain = "ct state new counter;" if tracked else "counter;"
    with ExitStack() as stack:
        stack.enter_context(
            rules(net.router, "t", f"chain f {{ type filter hook forward priority 0; {chain} }}")
        )
        receiver = stack.enter_context(listener(net.right, PORT))
        with here() as watched:
            send(net.left, "10.77.2.2", PORT, 3000)
            assert len(receiver.recv(4000)) == 3000
        counted = nft_counts(net.router, "f")
    assert counted == [1 if tracked else 3]
    found = parts(watched.one())
    ends = [str(one.end.kind) for one in found]
    assert ends.count("delivered") == 1
    assert set(ends) <= {"delivered", "joined", "consumed"}
    assert not [one for one in found if one.end.kind.is_drop]
    # no fragment stands below another one that was sent
    assert {one.copy_of for one in found if one.copy_of} <= {one.number for one in found}
    headings = [text(one)[0] for one in found]
    assert len([line for line in headings if "fragment" in line]) >= 2
    watched.check_devices()


def test_a_fragment_that_is_missing(net: Network, here: Here) -> None:
    net.right.run("sysctl", "-qw", "net.ipv4.ipfrag_time=1")
    drop = (
        "chain p { type filter hook postrouting priority 0; "
        "ip frag-off & 0x1fff != 0 counter drop; }"
    )
    before = statistic(net.right, "IpReasmFails")
    with rules(net.router, "t", drop), here() as watched:
        send(net.left, "10.77.2.2", PORT, 3000)
        counted = nft_counts(net.router, "p")
        # the first one waits for them in vain
        wait_for(
            lambda: statistic(net.right, "IpReasmFails") > before, what="the fragment is given up"
        )
    found = parts(watched.one())
    assert counted == [2]
    ends = [end_text(one) for one in found]
    assert len([end for end in ends if end.startswith("dropped by nft ip t p 1 ")]) == 2
    if kernel_version() > (6, 1):
        assert [end for end in ends if end.startswith("dropped: fragments missing")]
    watched.check_devices()


def test_segments(net: Network, watch: Watch) -> None:
    """A packet too big for a device is cut where it is sent: each segment is a part."""
    net.left.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
    again = statistic(net.left, "TcpRetransSegs")
    with ExitStack() as stack:
        stack.callback(net.left.run, "ethtool", "-K", "eth0", "tso", "on", "gso", "on")
        server = stack.enter_context(listener(net.right, 80, socket.SOCK_STREAM))
        with watch(net.left, net.router, net.right, expression="tcp dst port 80") as watched:
            net.left.call(upload, "10.77.2.2", 80, 20_000)
            taken = stack.enter_context(server.accept()[0])
            received = 0
            while chunk := taken.recv(1 << 16):
                received += len(chunk)
    assert received == 20_000
    found = [part for story in watched.stories for part in parts(story)]
    segments = [part for part in found if part.end.kind.value == "delivered"]
    # on a busy machine the sender may lose patience, and send again what has arrived
    dropped = [end_text(part) for part in found if part.end.kind.is_drop]
    assert all("TCP data that is there already" in end for end in dropped), dropped
    assert len(dropped) <= statistic(net.left, "TcpRetransSegs") - again
    inward = [s for s in watched.sights if s.place == "w-right from eth0" and s.dport == 80]
    assert len(segments) + len(dropped) == len(inward) > 14


def upload(address: str, port: int, size: int) -> None:
    """Send bytes over a connection."""
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(bytes(size))
