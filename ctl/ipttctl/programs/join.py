# SPDX-License-Identifier: GPL-2.0
"""The programs of a trace whose stories are joined with those of other hosts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ipttctl.bpf.collection import Collection
from ipttctl.programs.trace import own_spec

KEY_SIZE: Final = 16
"""Bytes of the key of a trace's hash."""

_NAME: Final = "join"
_ENTRY: Final = "join_entry"
_FUNCTION: Final = "join_function"
_EXIT: Final = "join_exit"
_STEP: Final = "join_step"


@dataclass(frozen=True)
class JoinPrograms:
    """The programs that tell what survives the wire, and their maps.

    ``entry``, ``function`` and ``exit`` are for the spine, ``step`` is for the journey;
    ``arrivals`` and ``departures`` are the maps with the bytes that they add to events.
    """

    collection: Collection

    @property
    def entry(self) -> int:
        """Descriptor of the program that chooses packets, and looks at those that come in."""
        return self.collection.programs[_ENTRY].fd

    @property
    def function(self) -> int:
        """Descriptor of the program that tells of a packet that came in."""
        return self.collection.programs[_FUNCTION].fd

    @property
    def exit(self) -> int:
        """Descriptor of the program that tells of one that came to a hook without functions."""
        return self.collection.programs[_EXIT].fd

    @property
    def step(self) -> int:
        """Descriptor of the program that tells of a packet that leaves."""
        return self.collection.programs[_STEP].fd

    @property
    def arrivals(self) -> int:
        """Descriptor of the map of the programs of functions and exits."""
        return self.collection.maps["arrivals"].fd

    @property
    def departures(self) -> int:
        """Descriptor of the map of the program of steps."""
        return self.collection.maps["departures"].fd

    def close(self) -> None:
        """Close all; links that have them keep them."""
        self.collection.close()


def load_join_programs(
    key: bytes, netns: int | None = None, *, on_compile: Callable[[], None] | None = None
) -> JoinPrograms:
    """Load the programs with the key of a trace; ``netns`` is the cookie of its only namespace.

    Raises:
        ProgramError: they cannot be found, compiled or loaded.
        PrivilegeError: the caller may not load programs.
    """
    assert len(key) == KEY_SIZE
    constants = {
        "want_netns": netns or 0,
        "key_low": int.from_bytes(key[:8], "little"),
        "key_high": int.from_bytes(key[8:], "little"),
    }
    spec = own_spec(constants, on_compile, _NAME)
    return JoinPrograms(Collection.load(spec, programs=[_ENTRY, _FUNCTION, _EXIT, _STEP]))
