# SPDX-License-Identifier: GPL-2.0
"""The network namespaces of events, with the names that they had then."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ipttctl.system.namespace_names import NameAt
from ipttproto import JoinedBatches

_KEY: Final = struct.Struct("=QL")


class NamedNamespaces(NamedTuple):
    """For each event the key of its namespace; inode number and name by key."""

    keys: Sequence[bytes]
    names: Mapping[bytes, tuple[int, str | None]]


def namespaces_of(events: JoinedBatches, names: NameAt | None) -> NamedNamespaces | None:
    """The namespaces of events.

    None if one of them got another name while these events happened: ask for each by itself.
    """
    keys = events.keys(("netns_cookie", "netns"))
    times = events.values("time")
    begin, end = min(times), max(times)
    found = {}
    for key in dict.fromkeys(keys):
        cookie, inode = _KEY.unpack(key)
        name = names.name(cookie, begin) if names else None
        # a name is taken away at most, so that it lasted from begin to end if it is there at both
        if names and begin != end and names.name(cookie, end) != name:
            return None
        found[key] = inode, name
    return NamedNamespaces(keys, found)
