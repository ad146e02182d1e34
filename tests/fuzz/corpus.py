# SPDX-License-Identifier: GPL-2.0
"""Requests that reached something new, as a basis for further changes."""

from __future__ import annotations

import random
from collections.abc import Set as AbstractSet

from tests.fuzz.request import Request


class Corpus:
    """Keeps a request if it reached a place in the code that none before it did."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._places: set[int] = set()

    def consider(self, request: Request, places: AbstractSet[int]) -> bool:
        """Add the places that a request reached; return whether the request is kept."""
        if places <= self._places:
            return False
        self._places |= places
        self._requests.append(request.copy())
        return True

    def pick(self, pick: random.Random) -> Request | None:
        """A copy of a kept request, the later ones more often; None if there is none."""
        if not self._requests:
            return None
        count = len(self._requests)
        return self._requests[max(pick.randrange(count), pick.randrange(count))].copy()

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def places(self) -> int:
        """The number of places in the code that were reached."""
        return len(self._places)
