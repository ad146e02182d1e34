# SPDX-License-Identifier: GPL-2.0
"""The packets that limits left out while a command ran."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from ipttctl.errors import KernelError, ModuleError
from ipttctl.link.controller import Controller
from ipttctl.link.limits import LeftOut
from ipttctl.link.model import Link


class LeftOutSince:
    """Packets that links leave out, from a moment on."""

    def __init__(self, controller: Controller, begin: list[Link], ids: Collection[int]) -> None:
        """The links ``begin`` are those of the moment, of which ``ids`` are meant; if none, all."""
        self._controller = controller
        self._begin = {link.id: link.stats.left_out for link in begin}
        self._ids = ids

    def total(self, told: Mapping[int, LeftOut]) -> LeftOut:
        """Those until now; a link that is gone has told the last that there is to know."""
        now = dict(self._begin)
        for link, one in told.items():
            # it may be older than the beginning
            if one.packets > now.get(link, LeftOut()).packets:
                now[link] = one
        # the module may be gone too, or links change all the time
        with suppress(ModuleError, KernelError):
            now |= {link.id: link.stats.left_out for link in self._controller.links()}
        of_links = (
            now[link] - self._begin.get(link, LeftOut())
            for link in now
            if not self._ids or link in self._ids
        )
        return sum(of_links, LeftOut())
