# SPDX-License-Identifier: GPL-2.0
"""Which events an observer wants, decided for a batch at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ipttproto import Kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_WITH_VERDICT: Final = (Kind.EXIT, Kind.PACKET)
_OF_RULES: Final = (Kind.RULE, Kind.RETURN, Kind.POLICY)


@dataclass(frozen=True)
class EventFilter:
    """An event passes if it has one of the values of each member that is not None.

    ``links`` are ids; ``families`` are numbers of protocol families (NFPROTO_*) and ``hooks``
    numbers of hooks in them; ``verdicts`` are NF_* numbers, which only the ends of tables and
    netfilter hooks have; ``tables`` and ``chains`` are names and ``rules`` numbers in a chain;
    ``namespaces`` are inode numbers; ``devices`` are names, either of the way in or out.
    """

    links: Collection[int] | None = None
    kinds: Collection[Kind] | None = None
    families: Collection[int] | None = None
    hooks: Collection[int] | None = None
    verdicts: Collection[int] | None = None
    tables: Collection[str] | None = None
    chains: Collection[str] | None = None
    rules: Collection[int] | None = None
    namespaces: Collection[int] | None = None
    devices: Collection[str] | None = None

    def wanted(self, events: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Whether each of ``events``, of the protocol's dtype, passes."""
        import numpy as np  # noqa: PLC0415  # slow to import

        def one_of(member: str, values: Iterable[Any]) -> npt.NDArray[np.bool_]:
            return np.isin(events[member], np.array(list(values), events.dtype[member]))

        passing = np.ones(len(events), np.bool_)
        for member, values in (
            ("link", self.links),
            ("kind", self.kinds),
            ("pf", self.families),
            ("hook", self.hooks),
            ("netns", self.namespaces),
            ("table", _encoded(self.tables)),
            ("chain", _encoded(self.chains)),
        ):
            if values is not None:
                passing &= one_of(member, values)
        if self.verdicts is not None:
            passing &= one_of("verdict", self.verdicts) & one_of("kind", _WITH_VERDICT)
        if self.rules is not None:
            passing &= one_of("rulenum", self.rules) & one_of("kind", _OF_RULES)
        devices = _encoded(self.devices)
        if devices is not None:
            passing &= one_of("in_name", devices) | one_of("out_name", devices)
        return passing


def _encoded(names: Collection[str] | None) -> list[bytes] | None:
    return None if names is None else [name.encode() for name in names]
