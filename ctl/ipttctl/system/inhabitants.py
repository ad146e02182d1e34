# SPDX-License-Identifier: GPL-2.0
"""The container that a network namespace is of, by the processes in it.

Whoever looks into a namespace has processes there too, out of other containers as well. So only
the first process of a container counts, the one that is process 1 to all others in it. Containers
inside containers stand for none: their ids are those of the outer one's cgroup.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ipttctl.system.containers import Container, Containers
from ipttctl.system.processes import Processes

_INIT: Final = 1
_MOST: Final = 1024
"""Most processes of a namespace that are looked at."""
_MOST_KNOWN: Final = 4096


class Inhabitants:
    """The containers of namespaces; not for several threads at once."""

    def __init__(
        self, containers: Containers | None = None, processes: Processes | None = None
    ) -> None:
        """Look up at this host."""
        self._containers = containers or Containers()
        self._processes = processes or Processes()
        #: containers in the host's own namespace do not stand for it
        self._initial = self._processes.network(_INIT)
        self._first: OrderedDict[int, tuple[Sequence[int], list[int]]] = OrderedDict()

    def container(self, inode: int, pids: Sequence[int], moment: int) -> Container | None:
        """The only container, or the only pod, that began in a namespace before a moment.

        Args:
            inode: the namespace's inode number.
            pids: processes that were seen in it; the same object if these are the same.
            moment: CLOCK_MONOTONIC, ns.

        Returns:
            None where there is none, there are several, or nothing proves it. A pod has no id.
        """
        if self._initial in {None, inode} or len(pids) > _MOST:
            return None
        found = {self._of(inode, pid, moment) for pid in self._first_of(inode, pids)} - {None}
        known = [one for one in found if one is not None]
        if len(known) <= 1:
            return next(iter(known), None)
        pods = {one.pod_uid for one in known}
        if len(pods) != 1 or pods == {""}:
            return None
        # the names are in the files of some containers only
        return replace(max(known, key=lambda one: one.pod), id="", name="")

    def _first_of(self, inode: int, pids: Sequence[int]) -> list[int]:
        """Those of some processes that are first in a container; looked for once."""
        known, first = self._first.get(inode, ((), []))
        if known is not pids:
            first = list(filter(self._processes.is_first, pids))
            self._first[inode] = pids, first
            self._first.move_to_end(inode)
            if len(self._first) > _MOST_KNOWN:
                self._first.popitem(last=False)
        return first

    def _of(self, inode: int, pid: int, moment: int) -> Container | None:
        """The container of a process, if that is the first of it, and is in the namespace."""
        if not self._processes.is_first(pid):
            return None
        process = self._processes.at(pid, moment)
        if process is None or self._processes.network(pid) != inode:
            return None
        # the number may have been given to another one meanwhile
        if self._processes.read(pid) != process:
            return None
        return self._containers.of(process.cgroup)
