# SPDX-License-Identifier: GPL-2.0
"""Filters from outside: text that libpcap compiles without looking anything up.

libpcap asks the resolver for words that it does not know, which would have a host ask name servers
for whatever somebody else wrote.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
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
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+){0,3}|0x[0-9a-f]+", re.IGNORECASE | re.ASCII)
_RANGE: Final = re.compile(r"[0-9]+-[0-9]+", re.ASCII)
_SLICE: Final = re.compile(r"(0x[0-9a-f]+|[0-9]+):[124]", re.IGNORECASE | re.ASCII)
_TOKEN: Final = re.compile(r"\s+|[()\[\]=<>!&|+*/%^~-]|\\?[A-Za-z0-9_.:-]+")


def check_filter(text: str) -> str:
    """A filter in which all words are those of the language, numbers or addresses.

    Raises:
        UsageError: it is too long, or has other words.
    """
    if len(text) > LONGEST:
        raise UsageError(f"the filter is longer than {LONGEST} characters")
    at, before = 0, ""
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise UsageError(f"the filter has a character that is not allowed: {text[at]!r}")
        at = token.end()
        word = token[0].strip()
        if not word:
            continue
        if (word[0].isalnum() or word[0] in "\\_.:") and not _known(word, before):
            raise UsageError(
                f"'{word}' in the filter is neither a word of filters nor a number or an address",
                "names are not looked up here",
            )
        before = word
    return text


def _known(word: str, before: str) -> bool:
    """Whether libpcap knows a word by itself, behind the one before.

    It takes `tcp-80` for one name, and so it does `80-90` that is no range of ports; a backslash
    makes a name of each word, and what has colons and is no address begins with one.
    """
    if word.startswith("\\"):
        return before in ("proto", "protochain") and word[1:] in _WORDS
    if word in _WORDS or _NUMBER.fullmatch(word):
        return True
    if _RANGE.fullmatch(word):
        return before == "portrange"
    return bool(_SLICE.fullmatch(word)) or _is_ipv6(word)


def _is_ipv6(word: str) -> bool:
    try:
        IPv6Address(word)
    except ValueError:
        return False
    return True
