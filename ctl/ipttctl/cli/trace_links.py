# SPDX-License-Identifier: GPL-2.0
"""The links of a trace, one at each back end, and the network namespace that they are for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from ipttctl.cli.output import tell_state
from ipttctl.cli.printing import note
from ipttctl.errors import LinkGoneError
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import LeftOut
from ipttctl.link.model import Change, Link, LinkChange, ProgramSet
from ipttctl.system.netns import Namespace


class TraceLinks:
    """Links with the same programs.

    Those at tables are swapped when another namespace is to be traced. Those at chains are in that
    namespace, so that a new one takes the place of the old one.
    """

    def __init__(self, controller: Controller, hooks: Iterable[Hook], programs: ProgramSet) -> None:
        """Attach to the hooks."""
        self._controller = controller
        self.there: dict[int, Link] = {}
        """The links that are attached."""
        self.ids: set[int] = set()
        """All that were attached so far, by us or still."""
        self.taken: list[int] = []
        """Those that somebody else detached."""
        self.left_out = LeftOut()
        """Packets that those left out which are detached."""
        for hook in hooks:
            self._attach(hook, programs)

    def follow(self, namespace: Namespace, programs: ProgramSet) -> None:
        """Go on with programs for another namespace."""
        for link in list(self.there.values()):
            with suppress(LinkGoneError):
                if not isinstance(link.hook, ChainHook):
                    self._controller.swap(link.id, programs)
                    continue
                # nothing of the new one is missed meanwhile
                made = self._attach(replace(link.hook, netns=namespace), programs)
                note(f"tracing: link {made.id}")
                del self.there[link.id]
                self._detach(link.id)

    def take(self, change: LinkChange) -> None:
        """Take note of a change of any link, and report what one of ours lacks."""
        if change.link.id not in self.there:
            return
        if change.change is Change.DETACHED:
            del self.there[change.link.id]
            self.left_out += change.link.stats.left_out
            self.taken.append(change.link.id)
        elif change.change is Change.CHANGED and not _is_gone(change.link.hook):
            tell_state(change.link)

    def detach(self) -> None:
        """Detach those that are left."""
        for link_id in self.there:
            self._detach(link_id)

    def _detach(self, link_id: int) -> None:
        self.left_out += self._controller.detach(link_id).stats.left_out

    def _attach(self, hook: Hook, programs: ProgramSet) -> Link:
        link = self._controller.attach(hook, programs)
        self.there[link.id] = link
        self.ids.add(link.id)
        return link


def _is_gone(hook: Hook) -> bool:
    """Whether the link's namespace is gone, which the namespace's own line says."""
    return isinstance(hook, ChainHook) and hook.gone is not None
