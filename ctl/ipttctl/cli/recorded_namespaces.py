# SPDX-License-Identifier: GPL-2.0
"""The namespaces of a recording that ``-N`` names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Final

from ipttctl.errors import UsageError
from ipttctl.numbers import U32_MAX
from ipttctl.recordings.reader import Events, Recording

_NAMED: Final = frozenset(map(PurePath, ("/run/netns", "/var/run/netns")))
"""Where files have the names of namespaces."""


def cookies(recording: Recording, texts: Iterable[str]) -> set[int]:
    """The cookies of the namespaces that options name.

    Raises:
        UsageError: the recording has none of a name or number.
    """
    found: set[int] = set()
    for text in texts:
        name = _name(text)
        here = {*recording.answers.named(name), *_of_inode(recording, name)}
        if not here:
            raise UsageError(
                f"--netns: the recording has no namespace '{text}'",
                "give a name or an inode number that its stories show",
            )
        found |= here
    return found


def _name(text: str) -> str:
    path = PurePath(text)
    return path.name if path.parent in _NAMED else text


def _of_inode(recording: Recording, text: str) -> Iterator[int]:
    """The cookies of the namespaces with an inode number."""
    # Python reads no more than some thousand digits
    if not text.isdecimal() or len(text) > len(str(U32_MAX)):
        return
    number = int(text)
    for one in recording.rulesets():
        if one.netns == number:
            yield one.netns_cookie
    for item in recording.items():
        if isinstance(item, Events):
            for batch in item.batches:
                here = batch.events["netns"] == number
                yield from set(batch.events["netns_cookie"][here].tolist())
