# SPDX-License-Identifier: GPL-2.0
"""The kernel's own numbers are those of its headers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from ipttproto import ArpHook, ArpOperation, InetHook, NetdevHook, NfFamily, TcpFlag, Verdict

_HEADERS = (
    "linux/netfilter.h",
    "linux/netfilter_arp.h",
    "linux/netfilter_bridge.h",
    "linux/netfilter/nf_tables.h",
    "linux/tcp.h",
)
#: where the kernel's headers spell a hook with an underscore of its own
_SPELLED = {
    "PREROUTING": "PRE_ROUTING",
    "INPUT": "LOCAL_IN",
    "OUTPUT": "LOCAL_OUT",
    "POSTROUTING": "POST_ROUTING",
}


def constants() -> Iterator[tuple[str, int]]:
    """The name that a header has for each number, and ours."""
    for verdict in Verdict:
        yield f"{'NFT' if verdict.of_nftables else 'NF'}_{verdict.name}", verdict
    for family in NfFamily:
        yield f"NFPROTO_{family.name}", family
    for hook in InetHook:
        yield f"NF_INET_{_SPELLED.get(hook.name, hook.name)}", hook
        if hook is not InetHook.INGRESS:
            yield f"NF_BR_{_SPELLED.get(hook.name, hook.name)}", hook
    yield from ((f"NF_ARP_{hook.name}", hook) for hook in ArpHook)
    yield from ((f"NF_NETDEV_{hook.name}", hook) for hook in NetdevHook)
    yield from ((f"ARPOP_{operation.name}", operation) for operation in ArpOperation)


def check(*assertions: str) -> str:
    """The complaints of a C compiler about assertions on its headers' numbers."""
    lines = [*(f"#include <{header}>" for header in _HEADERS), *assertions]
    return subprocess.run(
        ["cc", "-std=gnu11", "-fsyntax-only", "-x", "c", "-"],
        input="\n".join(["#include <netinet/in.h>", *lines, ""]),
        capture_output=True,
        text=True,
        check=False,
    ).stderr


def test_numbers_are_those_of_the_kernels_headers() -> None:
    lines = [f'_Static_assert((__u32){name} == {value}u, "{name}");' for name, value in constants()]
    # a word of which tcp.h has the flags in the order of the wire
    lines += [
        f"_Static_assert(TCP_FLAG_{flag.name} == __constant_cpu_to_be32({int(flag)} << 16),"
        f' "{flag.name}");'
        for flag in TcpFlag
    ]
    assert len(lines) > 40
    assert not check(*lines)


def test_a_wrong_number_would_be_found() -> None:
    assert "static assertion failed" in check('_Static_assert(NF_DROP == 1, "NF_DROP");')
