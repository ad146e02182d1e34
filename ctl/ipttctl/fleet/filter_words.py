# SPDX-License-Identifier: GPL-2.0
"""Filters from outside: text that libpcap compiles without looking anything up.

libpcap asks the resolver for words that it does not know, which would have a host ask name servers
for whatever somebody else wrote.
"""

from __future__ import annotations

import re
from typing import Final

from ipttctl.errors import UsageError

LONGEST: Final = 1024
"""Most characters of a filter."""

_WORDS: Final = frozenset(
    [
        "and",
        "or",
        "not",
        "src",
        "dst",
        "host",
        "net",
        "mask",
        "port",
        "portrange",
        "proto",
        "protochain",
        "ip",
        "ip6",
        "tcp",
        "udp",
        "icmp",
        "icmp6",
        "icmp6type",
        "icmp6code",
        "sctp",
        "igmp",
        "pim",
        "ah",
        "esp",
        "vrrp",
        "carp",
        "len",
        "less",
        "greater",
        "broadcast",
        "multicast",
        "icmptype",
        "icmpcode",
        "icmp-echoreply",
        "icmp-unreach",
        "icmp-sourcequench",
        "icmp-redirect",
        "icmp-echo",
        "icmp-routeradvert",
        "icmp-routersolicit",
        "icmp-timxceed",
        "icmp-paramprob",
        "icmp-tstamp",
        "icmp-tstampreply",
        "icmp-ireq",
        "icmp-ireqreply",
        "icmp-maskreq",
        "icmp-maskreply",
        "tcpflags",
        "tcp-fin",
        "tcp-syn",
        "tcp-rst",
        "tcp-push",
        "tcp-ack",
        "tcp-urg",
        "tcp-ece",
        "tcp-cwr",
    ]
)
_ADDRESS: Final = re.compile(
    r"[0-9]+(\.[0-9]+){0,3}|0x[0-9a-f]+|[0-9a-f]*:[0-9a-f:.]*", re.IGNORECASE
)
_TOKEN: Final = re.compile(r"\s+|[()\[\]=<>!&|+*/%^~-]|\\?[A-Za-z0-9_.:-]+")


def check_filter(text: str) -> str:
    """A filter in which all words are those of the language, numbers or addresses.

    Raises:
        UsageError: it is too long, or has other words.
    """
    if len(text) > LONGEST:
        raise UsageError(f"the filter is longer than {LONGEST} characters")
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise UsageError(f"the filter has a character that is not allowed: {text[at]!r}")
        word = token[0].removeprefix("\\")
        at = token.end()
        if word[0].isalnum() or word[0] in "_.:":
            _check_word(word)
    return text


def _check_word(word: str) -> None:
    # a range of ports is one word
    parts = [word] if word in _WORDS else word.split("-")
    for part in parts:
        if part not in _WORDS and not _ADDRESS.fullmatch(part):
            raise UsageError(
                f"'{word}' in the filter is neither a word of filters nor a number or an address",
                "names are not looked up for others",
            )
