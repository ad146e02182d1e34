# SPDX-License-Identifier: GPL-2.0
"""A network namespace that is followed: what was asked for, when to work for it, and for how long.

One thread works; others ask and begin. A lock guards whether it is followed; each other attribute
that they share is set and read in one step.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Sequence
from typing import Final

from ipttctl.bpf.descriptors import Wakeup
from ipttctl.errors import KernelError, UsageError, os_reason
from ipttctl.rules import confine, texts
from ipttctl.rules.backends import nft_present
from ipttctl.rules.budget import Budget
from ipttctl.rules.confine import CAP_NET_ADMIN, CAP_NET_RAW
from ipttctl.rules.follower import Follower
from ipttctl.rules.history import History
from ipttctl.rules.legacy import Counter, Failure, LegacyRules
from ipttctl.rules.messages import MalformedError
from ipttctl.rules.netlink import Asking, ChangedError, Listening, TooLargeError
from ipttctl.system import netns

_RETRY: Final = 10.0
_PRESENT: Final = 1.0
_TOO_LARGE_RETRY: Final = 60.0
_TRIES: Final = 3
_MOST_WANTED: Final = 10_000


class FollowedNamespace:
    """The rulesets of a namespace as far as they are known, and wishes for more."""

    def __init__(self, cookie: int, counter: Counter | None, stop: Wakeup) -> None:
        """Begin with nothing, see ``begin``; ``stop`` ends programs that run."""
        self._stop = stop
        self.cookie = cookie
        self.asked = time.monotonic()
        """When somebody asked last."""
        self.likely_to_go = False
        """Whether it lost its name since it is followed."""
        self.failure = ""
        """Why nothing can be read at the moment."""
        self.legacy = LegacyRules(counter)
        self._history = History()
        self._follower: Follower | None = None
        self._descriptor: int | None = None
        self._own = False
        self._following = threading.Lock()
        """Guards the descriptor, the one to begin with and the wish to leave."""
        self._begin: int | None = None
        self._leave = False
        self._watched = False
        self._budget = Budget()
        self._working = False
        self._retry_at = 0.0
        self._present_at = 0.0
        self._generation = 0
        self._chains: dict[tuple[int, str], bool] = {}
        self._tries: dict[tuple[int, str], int] = {}
        self._legacy_wanted: dict[tuple[int, str] | None, None] = {}

    # --- asked by any thread ----------------------------------------------------------------------

    @property
    def history(self) -> History:
        """The history of its rules."""
        follower = self._follower
        return self._history if follower is None else follower.history

    @property
    def size(self) -> int:
        """The bytes that its rules take, roughly."""
        return self.history.size + self.legacy.size

    @property
    def followed(self) -> bool:
        """Whether it is followed, or will be at once."""
        with self._following:
            return self._to_be_followed

    @property
    def busy(self) -> bool:
        """Whether something was asked for that is not done."""
        if self._begin is not None:
            return True
        if self._descriptor is None:
            return False
        return bool(self._legacy_wanted) or (not self.failure and self._busy_with_nft)

    @property
    def stalled(self) -> bool:
        """Whether nothing is read for some time: that has taken its share of it."""
        return not self._working and not self._budget.left

    @property
    def _busy_with_nft(self) -> bool:
        known = self.history.known
        return known is None or self._generation > known or bool(self._chains)

    @property
    def _to_be_followed(self) -> bool:
        return self._begin is not None or (self._descriptor is not None and not self._leave)

    def begin(self, namespace: int) -> None:
        """Have it followed, by a descriptor, which stays the caller's."""
        self.asked = time.monotonic()
        with self._following:
            if not self._to_be_followed:
                self.likely_to_go = False
                self._begin = os.dup(namespace)

    def leave(self) -> None:
        """Have it let go."""
        with self._following:
            begin, self._begin = self._begin, None
            self._leave = self._descriptor is not None
        if begin is not None:
            os.close(begin)

    def want_generation(self, generation: int) -> bool:
        """Ask that a generation be known; returns whether that is new."""
        if generation <= self._generation:
            return False
        self._generation = generation
        return True

    def want(self, table: int, chain: str, *, also_nft: bool) -> bool:
        """Ask for the listing of a chain; returns whether that is new."""
        asked = self._chains.get((table, chain))
        if asked is also_nft or asked or len(self._chains) >= _MOST_WANTED:
            return False
        self._chains[table, chain] = also_nft
        return True

    def want_legacy(self, table: tuple[int, str]) -> bool:
        """Ask for a legacy table, by family and name; returns whether that is new."""
        if table in self._legacy_wanted:
            return False
        self._legacy_wanted[table] = None
        return True

    def due(self, idle: float | None) -> float | None:
        """Seconds until there is work, without a change; None if there is none."""
        if self._begin is not None or self._leave:
            return 0.0
        if self._descriptor is None:
            return None
        now = time.monotonic()
        times = []
        if idle is not None and not self._own:
            times.append(max(0.0, self.asked + idle - now))
        allowed = self._budget.wait
        ready = max(allowed, self._retry_at - now)
        if self._legacy_wanted:
            times.append(allowed)
        if self._follower is None:
            times.append(max(ready, self._present_at - now))
        elif not self._watched or self._busy_with_nft:
            times.append(ready)
        return min(times, default=None)

    # --- the thread that works --------------------------------------------------------------------

    def work(self, epoll: select.epoll, idle: float | None) -> bool:
        """Do what is due; returns whether there was something."""
        now = time.monotonic()
        idling = idle is not None and not self._own and now >= self.asked + idle
        if self._leave or (idling and self._descriptor is not None):
            self._let_go(epoll)
        self._start()
        if self._descriptor is None:
            return False
        if self._budget.wait:
            # changes wait in the kernel, up to a limit
            self._watch(epoll, False)
            return False
        self._working = True
        try:
            with self._budget.computing():
                worked = now >= self._retry_at and self._work(epoll)
                return self._work_on_legacy() or worked
        finally:
            self._working = False

    def close(self) -> None:
        """Let it go; the thread that works has ended."""
        self._end_following()
        for descriptor in (self._descriptor, self._begin):
            if descriptor is not None:
                os.close(descriptor)
        self._descriptor = self._begin = None

    def _start(self) -> None:
        with self._following:
            # one that is to be left goes first, in the next round
            if self._begin is None or self._descriptor is not None:
                return
            self._descriptor, self._begin = self._begin, None
            self._own = os.fstat(self._descriptor).st_ino == netns.own()
            self._retry_at = 0.0
            self.failure = ""
        if self.legacy.certain:
            self._legacy_wanted[None] = None

    def _work(self, epoll: select.epoll) -> bool:
        """Do what is due for nftables; if it fails, again later."""
        try:
            return self._work_on_nft(epoll)
        except ChangedError:
            return True  # again, when there is time for it
        except TooLargeError:
            self._fail(epoll, "the ruleset is too large to be kept", _TOO_LARGE_RETRY)
            self._history = History()
        except (KernelError, MalformedError, UsageError) as error:
            self._fail(epoll, str(error), _RETRY)
        except OSError as error:
            self._fail(epoll, f"cannot enter its namespace: {os_reason(error)}", _RETRY)
        except Exception as error:
            # a fault of ours costs texts and not the thread
            self._fail(epoll, f"reading the ruleset failed: {error!r}", _RETRY)
        return True

    def _work_on_legacy(self) -> bool:
        worked = False
        while self._legacy_wanted and not self._budget.wait:
            table = next(iter(self._legacy_wanted))
            why = self._read_legacy(table)
            if why and table is not None:
                self.legacy.failures[table] = Failure(why)
            # who asks from now on gets an answer
            self._legacy_wanted.pop(table, None)
            worked = True
        return worked

    def _read_legacy(self, table: tuple[int, str] | None) -> str:
        """Read a legacy table, or all; returns why that fails altogether."""
        try:
            self.legacy.read(self._descriptor or 0, self._run, table)
        except OSError as error:
            return f"cannot enter its namespace: {os_reason(error)}"
        except Exception as error:
            # a fault of ours, or of the caller's counter, costs texts and not the thread
            return f"reading the table failed: {error!r}"
        return ""

    def _work_on_nft(self, epoll: select.epoll) -> bool:
        if time.monotonic() < self._present_at:
            return False
        if not nft_present():
            # asking would load it; where it was unloaded, handles begin anew
            self._watch(epoll, False)
            self._end_following()
            self._history = History()
            self._generation = 0
            self._chains.clear()
            self.failure = "nf_tables is not loaded"
            self._present_at = time.monotonic() + _PRESENT
            return False
        if self._follower is None:
            self._follower = self._opened()
            self._follower.read_again()
        self.failure = ""
        follower = self._follower
        self._watch(epoll, True)
        worked = follower.follow()
        if self._generation > (follower.history.known or 0):
            follower.reach(follower.asking.generation())
            worked = True
        self._generation = 0
        while self._chains and not self._budget.wait:
            chain = next(iter(self._chains))
            self._write(follower, chain)
            worked = True
        return worked

    def _write(self, follower: Follower, chain: tuple[int, str]) -> None:
        also_nft = self._chains[chain]
        try:
            texts.write(follower, self._run, *chain, also_nft=also_nft)
        except ChangedError:
            self._tries[chain] = self._tries.get(chain, 0) + 1
            if self._tries[chain] < _TRIES:
                raise
            texts.give_up(follower, *chain, "the chain changes faster than it can be listed")
        self._tries.pop(chain, None)
        # who asks from now on gets an answer; but for nft it may have been asked meanwhile
        if self._chains.get(chain) is also_nft:
            self._chains.pop(chain, None)

    def _opened(self) -> Follower:
        namespace = self._descriptor or 0
        listening = Listening(namespace)
        try:
            if listening.cookie() != self.cookie:
                raise UsageError(f"the descriptor is not of network namespace {self.cookie}")
            return Follower(listening, Asking(namespace), self._history)
        except BaseException:
            listening.close()
            raise

    def _run(self, name: str, arguments: Sequence[str]) -> bytes:
        # iptables asks for some extensions over a raw socket
        more = () if name == "nft" else (CAP_NET_RAW,)
        begin = time.monotonic()
        try:
            return confine.run(
                name,
                arguments,
                self._descriptor or 0,
                capabilities=(CAP_NET_ADMIN, *more),
                stop=self._stop.descriptor,
            )
        finally:
            self._budget.spend(time.monotonic() - begin)

    def _watch(self, epoll: select.epoll, watched: bool) -> None:
        if self._follower is None or watched == self._watched:
            return
        if watched:
            epoll.register(self._follower, select.EPOLLIN)
        else:
            epoll.unregister(self._follower)
        self._watched = watched

    def _fail(self, epoll: select.epoll, why: str, retry: float) -> None:
        self.failure = why
        self._retry_at = time.monotonic() + retry
        self._generation = 0
        self._chains.clear()
        self._watch(epoll, False)
        self._end_following()

    def _let_go(self, epoll: select.epoll) -> None:
        self._watch(epoll, False)
        self._end_following()
        self._chains.clear()
        self._legacy_wanted.clear()
        with self._following:
            self._leave = False
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _end_following(self) -> None:
        follower, self._history = self._follower, self.history
        self._follower = None
        self._watched = False
        if follower is not None:
            follower.close()
