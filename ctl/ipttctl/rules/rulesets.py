# SPDX-License-Identifier: GPL-2.0
"""The text of the rule that an event names, as it was when the packet passed.

    with Rulesets() as rulesets:
        rulesets.start()
        rulesets.follow(cookie, namespace)
        ...
        answer = rulesets.text(RuleKey(cookie, table, rule, generation))

Looking up takes microseconds and waits for nothing. Reading and listing is done by ``work``, which
a thread of its own may do (``start``) or the caller (``fileno``, ``due``).
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from ipttctl.bpf.descriptors import ClosedError, Closing, Wakeup, owned_descriptor
from ipttctl.escape import Escaped
from ipttctl.rules.legacy import Counter, Rules
from ipttctl.rules.namespace import FollowedNamespace
from ipttctl.rules.origin import Syntax
from ipttctl.rules.texts import raw, resolve

IDLE: Final = 10.0
"""Seconds without a question after which a namespace is let go.

Sockets keep a namespace alive: one whose last process has ended would stay as long as we follow it.
"""

IDLE_WITHOUT_NAME: Final = 1.0
"""The same for a namespace that lost its name: it is likely to go."""

MOST_NAMESPACES: Final = 256
"""Most namespaces that are known at once; the one not asked for longest goes first."""

MOST_BYTES: Final = 256 << 20
"""Most bytes of rules that are kept of all namespaces together; the same goes first."""


class RuleKey(NamedTuple):
    """A rule of nftables in an event: handles of its table and its own, in a generation.

    ``uncertain`` says that a change raced with the packet.
    """

    cookie: int
    table: int
    rule: int
    generation: int
    uncertain: bool = False


class LegacyKey(NamedTuple):
    """A rule of a legacy table in an event.

    ``generation`` is that of the table's rules, 0 if nobody counted. ``uncertain`` says that a
    replacement raced with the packet.
    """

    cookie: int
    family: int
    table: str
    chain: str
    number: int
    generation: int
    uncertain: bool = False


class RuleText(NamedTuple):
    """An answer: a rule's text that is certain, or none.

    ``why`` says why there is none, or none in a better syntax. ``pending``: it may be known soon.
    ``chain`` is the whole name of the rule's chain, which events cut; ``table`` that of a table of
    nftables. Without a text ``certain`` means that the event is not of a rule: the packet is at the
    end of the chain.
    """

    text: Escaped | None
    certain: bool
    why: str = ""
    syntax: Syntax | None = None
    pending: bool = False
    chain: str = ""
    table: str = ""


def _uncertain(why: str) -> RuleText:
    return RuleText(None, certain=False, why=why)


def _pending(why: str) -> RuleText:
    return RuleText(None, certain=False, why=why, pending=True)


_RACED: Final = _uncertain("the ruleset changed while the packet passed")
NOT_FOLLOWED: Final = _uncertain("its network namespace is not followed")
"""The answer for a namespace that was not followed, or is not any more."""

_TOO_EARLY: Final = _uncertain("the packet passed before the ruleset was read")
_NOT_KEPT: Final = _uncertain("the ruleset of that moment is not known, or not kept any more")
_NOT_READ: Final = _pending("the ruleset is not read yet")
_NOT_LISTED: Final = _pending("the rule is not listed yet")
_STALLED: Final = _uncertain("reading the rules of its namespace has taken its share of the time")
_NOT_COUNTED: Final = _uncertain("replacements of legacy tables were not counted")
_REPLACED: Final = _uncertain("the table was replaced while the packet passed")
_END_OF_CHAIN: Final = RuleText(None, certain=True)
_NO_SUCH_RULE: Final = _uncertain("the table has no such rule")


def _of_number(rules: Rules, key: LegacyKey) -> RuleText:
    of_chain = rules.get(key.chain)
    if of_chain is None or not 0 < key.number <= len(of_chain) + 1:
        return _NO_SUCH_RULE
    if key.number > len(of_chain):
        return _END_OF_CHAIN
    text = of_chain[key.number - 1]
    return RuleText(text, certain=True, syntax=Syntax.IPTABLES, chain=key.chain)


class Rulesets(Closing):
    """The rulesets of namespaces, followed; the text of every rule that events name."""

    def __init__(
        self,
        *,
        idle: float | None = IDLE,
        most: int = MOST_NAMESPACES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Begin with no namespace; let one go after ``idle`` seconds without a question."""
        self._idle = idle
        self._most = most
        self._most_bytes = most_bytes
        self._stop = Wakeup()
        self._namespaces: dict[int, FollowedNamespace] = {}
        self._lock = threading.Lock()
        self._worked = threading.Condition()
        self._epoll = select.epoll()
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(wake, select.EPOLLIN)
        self._wake = owned_descriptor(wake)
        self._forgotten: list[FollowedNamespace] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    # --- namespaces -------------------------------------------------------------------------------

    def follow(self, cookie: int, namespace: int, counter: Counter | None = None) -> None:
        """Follow the namespace with a cookie, behind a descriptor, which stays the caller's.

        ``counter``, when the namespace is first followed, tells the generations of its legacy
        tables; ``work`` calls it. Nothing is read before ``work``.
        A namespace that is followed already stays so; one that was let go is followed again.
        """
        with self._lock:
            known = self._namespaces.get(cookie)
            if known is None:
                known = self._namespaces[cookie] = FollowedNamespace(cookie, counter, self._stop)
                self._make_room()
            known.begin(namespace)
        self._wake_up()

    def followed(self, cookie: int) -> bool:
        """Whether a namespace is followed at the moment."""
        known = self._namespaces.get(cookie)
        return known is not None and known.followed

    def release(self, cookie: int) -> None:
        """Let a namespace go; what is known of it stays."""
        known = self._namespaces.get(cookie)
        if known is not None:
            known.leave()
            self._wake_up()

    def lost_name(self, cookie: int) -> None:
        """Let a namespace go soon, unless it is asked for; it lost its name."""
        known = self._namespaces.get(cookie)
        if known is not None:
            known.likely_to_go = True
            self._wake_up()

    # --- answers ----------------------------------------------------------------------------------

    def text(self, key: RuleKey) -> RuleText:
        """The text of a rule of nftables at the moment that an event names."""
        known = self._namespaces.get(key.cookie)
        if known is None:
            return NOT_FOLLOWED
        known.asked = time.monotonic()
        if key.uncertain:
            return _RACED
        history = known.history
        last = history.known
        if last is None or key.generation > last:
            return self._not_read(known, key.generation)
        version = history.find((key.table, key.rule), key.generation)
        if version is None:
            first = history.first
            return _TOO_EARLY if first is None or key.generation < first else _NOT_KEPT
        text = version.text or resolve(version)
        if text is None:
            if version.valid and known.followed:
                if known.want(key.table, version.rule.chain, also_nft=version.listed is not None):
                    self._wake_up()
                return _STALLED if known.stalled else _NOT_LISTED
            text = raw(version, "the rule had gone before it was listed")
        version.text = text
        return RuleText(
            text.text,
            certain=True,
            why=text.why,
            syntax=text.syntax,
            chain=version.rule.chain,
            table=version.rule.table,
        )

    def legacy_text(self, key: LegacyKey) -> RuleText:
        """The text of a rule of a legacy table at the moment that an event names.

        Its number may be that of the policy, or of the end of a chain, which have no text.
        """
        known = self._namespaces.get(key.cookie)
        if known is None:
            return NOT_FOLLOWED
        known.asked = time.monotonic()
        if key.uncertain:
            return _REPLACED
        if not key.generation or not known.legacy.certain:
            return _NOT_COUNTED
        rules = known.legacy.find((key.family, key.table), key.generation)
        return self._legacy_not_read(known, key) if rules is None else _of_number(rules, key)

    def _legacy_not_read(self, known: FollowedNamespace, key: LegacyKey) -> RuleText:
        place = key.family, key.table
        if known.legacy.early(place, key.generation):
            return _TOO_EARLY
        if known.legacy.missed(place, key.generation):
            return _NOT_KEPT
        if not known.followed:
            return NOT_FOLLOWED
        if known.want_legacy(place):
            self._wake_up()
        why = known.legacy.failure(place, key.generation)
        if why:
            return _uncertain(why)
        return _STALLED if known.stalled else _NOT_READ

    def _not_read(self, known: FollowedNamespace, generation: int) -> RuleText:
        if known.failure:
            return _uncertain(known.failure)
        if not known.followed:
            return NOT_FOLLOWED
        if known.want_generation(generation):
            self._wake_up()
        return _STALLED if known.stalled else _NOT_READ

    # --- work -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Do the work in a thread of its own, from now until ``close``."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rulesets", daemon=True)
            self._thread.start()

    def fileno(self) -> int:
        """The descriptor that is readable when there is something for ``work``."""
        return self._epoll.fileno()

    @property
    def due(self) -> float | None:
        """Seconds until there is something for ``work`` anyway; None if there is not."""
        times = [
            due for known in self._list() if (due := known.due(self._idle_of(known))) is not None
        ]
        return min(times, default=None)

    def work(self, timeout: float | None = None) -> bool:
        """Follow changes and list what was asked for; wait for that at most ``timeout`` seconds.

        Returns whether there was something to do.
        """
        due = self.due
        times = [seconds for seconds in (due, timeout) if seconds is not None]
        ready = self._epoll.poll(min(times) if times else None)
        with suppress(BlockingIOError, ClosedError), self._wake as wake:
            os.eventfd_read(wake)
        worked = bool(ready)
        for known in self._list():
            worked |= known.work(self._epoll, self._idle_of(known))
        with self._lock:
            self._make_room()
        while self._forgotten:
            self._forgotten.pop().close()
        with self._worked:
            self._worked.notify_all()
        return worked

    def settle(self, timeout: float, done: Callable[[], bool] | None = None) -> bool:
        """Wait until all that was asked for is known, or until ``done``.

        Returns False if it takes longer.
        """
        done = done or self._settled
        end = time.monotonic() + timeout
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self._thread is None:
                self.work(left)
                continue
            with self._worked:
                if not done():
                    self._worked.wait(left)
        return True

    def close(self) -> None:
        """End the work and let all namespaces go."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._wake_up()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        for known in [*self._list(), *self._forgotten]:
            known.close()
        self._epoll.close()
        self._wake.close()
        self._stop.close()

    def _run(self) -> None:
        # signals are left to the thread that waits for them
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._closed:
            self.work()

    def _list(self) -> list[FollowedNamespace]:
        with self._lock:
            return list(self._namespaces.values())

    def _idle_of(self, known: FollowedNamespace) -> float | None:
        if self._idle is None or not known.likely_to_go:
            return self._idle
        return min(self._idle, IDLE_WITHOUT_NAME)

    def _settled(self) -> bool:
        return not any(known.busy for known in self._list())

    def _wake_up(self) -> None:
        with suppress(ClosedError), self._wake as wake:
            os.eventfd_write(wake, 1)

    def _make_room(self) -> None:
        """Forget the namespaces that were not asked for longest; the lock is held."""
        by_age = sorted(self._namespaces.values(), key=lambda known: known.asked)
        size = sum(known.size for known in by_age)
        for oldest in by_age[:-1]:
            if len(self._namespaces) <= self._most and size <= self._most_bytes:
                break
            size -= oldest.size
            del self._namespaces[oldest.cookie]
            self._forgotten.append(oldest)
