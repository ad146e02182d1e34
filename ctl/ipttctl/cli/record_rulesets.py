# SPDX-License-Identifier: GPL-2.0
"""Whole rulesets for a recording, as the programs that own them print them.

They are listed when recording begins, when packets come from another network namespace, and when
events tell of another generation of rules. A thread does that, so that events are read meanwhile.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from ipttctl.bpf.descriptors import Wakeup
from ipttctl.errors import IpttctlError
from ipttctl.families import NfFamily
from ipttctl.rules import confine
from ipttctl.rules.backends import legacy_tables, nft_present
from ipttctl.rules.confine import CAP_NET_ADMIN, CAP_NET_RAW, Bounds, ListingError
from ipttctl.rules.legacy import SAVE
from ipttctl.system import netns

MOST: Final = 1024
"""Most listings of a recording."""

_PAUSE: Final = 1.0
"""Seconds between two listings of a namespace whose rules change all the time."""

_PATIENCE: Final = 10.0
"""Seconds for which the end waits for listings."""

_MOST_WAITING: Final = 64
_BOUNDS: Final = Bounds(seconds=30, cpu_seconds=30, output=8 << 20)

Namespace = tuple[int, int]
"""Cookie and inode number."""


class RecordedRulesets:
    """Lists rulesets from ``start`` to ``end``; ``take`` gives those that are listed."""

    def __init__(self) -> None:
        self._asked: dict[int, set[int]] = {}
        self._wanted: queue.Queue[Namespace | None] = queue.Queue(_MOST_WAITING)
        self._found: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._last: dict[tuple[int, str, str], str] = {}
        self._when: dict[int, float] = {}
        self._left = MOST
        self._stop = Wakeup()
        self._thread = threading.Thread(target=self._run, name="rulesets", daemon=True)

    def start(self) -> None:
        """Begin, with the rules of our own namespace."""
        self._thread.start()
        with suppress(IpttctlError), netns.Namespace(netns.OWN) as own:
            self.want(own.identity.cookie, own.identity.inode, 0)

    def want(self, cookie: int, inode: int, generation: int) -> None:
        """Have a namespace listed, unless that was done for this generation of its rules."""
        known = self._asked.setdefault(cookie, set())
        if generation in known:
            return
        with suppress(queue.Full):
            self._wanted.put_nowait((cookie, inode))
            known.add(generation)

    def take(self) -> Iterator[dict[str, Any]]:
        """The rulesets that were listed since the last time, as objects of a recording."""
        with suppress(queue.Empty):
            while True:
                yield self._found.get_nowait()

    def end(self) -> None:
        """Wait some time for those that are wanted, and end the thread."""
        with suppress(queue.Full):
            self._wanted.put(None, timeout=_PATIENCE)
        self._thread.join(_PATIENCE)
        self._stop.set()
        self._thread.join(1)

    def _run(self) -> None:
        while (one := self._wanted.get()) is not None and self._left > 0:
            cookie, inode = one
            # what comes meanwhile is in this listing
            if self._stop.wait(max(0.0, self._when.get(cookie, 0.0) - time.monotonic())):
                return
            self._when[cookie] = time.monotonic() + _PAUSE
            # the namespace may be gone, and its inode number another one's
            with suppress(IpttctlError, OSError), netns.find(f"{inode}@{cookie}") as found:
                self._list(found.fileno(), cookie, inode)

    def _list(self, namespace: int, cookie: int, inode: int) -> None:
        if nft_present():
            self._add(cookie, inode, "nft", "", lambda: self._nft(namespace))
        for table in legacy_tables(namespace):
            if program := SAVE.get(NfFamily(table.family)):
                name = table.name

                def save(program: str = program, name: str = name) -> str:
                    return self._program(namespace, program, "-t", name)

                self._add(cookie, inode, "legacy", f"{program} {name}", save)

    def _nft(self, namespace: int) -> str:
        return self._program(namespace, "nft", "-s", "list", "ruleset")

    def _add(
        self, cookie: int, inode: int, backend: str, what: str, listed: Callable[[], str]
    ) -> None:
        began = time.monotonic_ns()
        text, why = "", ""
        try:
            text = listed()
        except ListingError as error:
            why = str(error)
        key = cookie, backend, what
        if self._last.get(key) == text + why or self._left <= 0:
            return
        self._left -= 1
        self._last[key] = text + why
        self._found.put(
            {
                "about": "ruleset",
                "netns_cookie": cookie,
                "netns": inode,
                "backend": backend,
                "table": what,
                "time": time.time_ns(),
                "began": began,
                "ended": time.monotonic_ns(),
                "text": text,
                "why": why,
            }
        )

    def _program(self, namespace: int, name: str, *arguments: str) -> str:
        more = () if name == "nft" else (CAP_NET_RAW,)
        output = confine.run(
            name,
            arguments,
            namespace,
            capabilities=(CAP_NET_ADMIN, *more),
            bounds=_BOUNDS,
            stop=self._stop.descriptor,
        )
        return output.decode(errors="surrogateescape")
