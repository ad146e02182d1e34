# SPDX-License-Identifier: GPL-2.0
"""The verbs about shadows, which a controller has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from ipttctl.link.condition import Condition
from ipttctl.link.model import Link, Part, ProgramSet, Swap, expectations
from ipttctl.link.names import LinkRef, link_attributes
from ipttctl.link.terms import how_attributes, terms_attributes
from ipttproto import Command, Slot


class ShadowVerbs(ABC):
    """The requests about shadows, of an object that sends requests."""

    @abstractmethod
    def _link(self, command: Command, attributes: Mapping[str, Any], action: str) -> Link:
        """Send a request that is answered with one link."""

    @abstractmethod
    def _kept(self, swap: Swap, opened: ExitStack) -> Swap:
        """The swap with the parts that it keeps."""

    def shadow(
        self,
        link: LinkRef,
        programs: ProgramSet,
        *,
        expect_generation: int | None = None,
        expect_programs: Mapping[Slot, int] | None = None,
        promote_if: Iterable[Condition] = (),
        labels: Mapping[str, str] | None = None,
        force: bool = False,
        keep: Collection[Part] = (),
    ) -> Link:
        """Give a link a shadow: its verdicts are compared with the link's, and not used.

        From when this returns, each packet of the link meets the shadow too. ``agreed`` and
        ``disagreed`` in the link's counters start at 0. Each disagreement is an event. The link
        must decide over packets (netfilter hooks, ``NfMode.FILTER``), wait for no roll-back and
        have no shadow; until that is promoted or dropped the link cannot be swapped.

        The module itself promotes the shadow, even if this process has died, as soon as all the
        conditions ``promote_if`` are met, counted from now on: they are on its agreements and
        disagreements, in packets that were compared. Without a packet none is met.

        ``programs`` and the other arguments are as for ``swap``; ``labels`` are those that the link
        has once the shadow is promoted.

        Raises:
            LinkGoneError: there is no such link.
            ExpectationError: the link is not as expected; nothing was changed.
            UsageError: a part to keep is given too.
            ProgramError: the new programs have no map for the payload.
            KernelError: with EOPNOTSUPP, the link has no verdicts, or the program may have other
                effects; with EBUSY, it may write to a map that a link uses, or the link has a
                shadow; SwapWaitingError, the last swap of the link waits.
        """
        swap = Swap(link, programs, expect_generation, expect_programs, labels, keep)
        with ExitStack() as opened:
            attributes = {
                **self._kept(swap, opened).attributes(),
                **how_attributes(None, force),
            }
            conditions = [condition.attributes() for condition in promote_if]
            if conditions:
                attributes["promote-if"] = conditions
            return self._link(Command.SHADOW, attributes, f"giving link {link} a shadow")

    def promote(
        self,
        link: LinkRef,
        *,
        expect_generation: int | None = None,
        expect_shadow: int | None = None,
        rollback_after: float | None = None,
        guards: Iterable[Condition] = (),
        reason: str | None = None,
        force: bool = False,
    ) -> Link:
        """Swap the shadow of a link in: each packet meets the old set, or what was the shadow.

        ``expect_shadow`` is the number of the shadow (``Link.shadow``): without it, this promotes
        whichever shadow the link has. The other arguments are as for ``swap``.

        Raises:
            LinkGoneError: there is no such link.
            ExpectationError: the link is of another generation, or has another shadow.
            KernelError: with ENODATA, the link has no shadow.
        """
        attributes = {
            **_shadow_of(link, expect_generation, expect_shadow),
            **terms_attributes(rollback_after, guards),
            **how_attributes(reason, force),
        }
        return self._link(Command.PROMOTE, attributes, f"promoting the shadow of link {link}")

    def drop_shadow(
        self,
        link: LinkRef,
        *,
        expect_generation: int | None = None,
        expect_shadow: int | None = None,
        force: bool = False,
    ) -> Link:
        """Take the shadow of a link away; its counters stay until the link has another one.

        The arguments are as for ``promote``.

        Raises:
            LinkGoneError: there is no such link.
            ExpectationError: the link is of another generation, or has another shadow.
            KernelError: with ENODATA, the link has no shadow.
        """
        attributes = {
            **_shadow_of(link, expect_generation, expect_shadow),
            **how_attributes(None, force),
        }
        return self._link(Command.DROP_SHADOW, attributes, f"dropping the shadow of link {link}")


def _shadow_of(link: LinkRef, generation: int | None, number: int | None) -> dict[str, Any]:
    """The attributes of a request about a shadow, and what it expects."""
    expected = {} if number is None else {"expect-shadow": number}
    return {**link_attributes(link), **expectations(generation, None), **expected}
