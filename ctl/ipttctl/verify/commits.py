# SPDX-License-Identifier: GPL-2.0
"""Changes of a ruleset without pause, none of which concerns any packet.

Each chain of the ruleset gets a rule in front of its first that matches nothing, and loses it
again: the kernel replaces the rules that packets are walking through. Beside that a table comes,
has its chains replaced, and goes.
"""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from ipttctl.bpf.descriptors import Closing
from ipttctl.families import NFT_FAMILIES
from ipttctl.verify.netlink import (
    CREATE,
    ECHO,
    NESTED,
    Netlink,
    NftCommand,
    Subsystem,
    SubsystemMessage,
    attribute,
    batch,
    request,
    string,
)
from ipttctl.verify.outcome import COMMITS_TABLE
from ipttctl.verify.rulesets import RandomChain, Ruleset

_NUMBERS: Final = {name: number for number, name in NFT_FAMILIES.items()}
_NEVER: Final = 0xDEAD1E55
"""A mark that no packet has."""

_PATIENCE: Final = 30.0
_META_MARK: Final = 3
_REGISTER: Final = 8
_JUMP: Final = -3
_INET: Final = 1
_ROUTED: Final = 5
"""Hooks of the Internet families."""


class Commits(Closing):
    """A thread that commits changes until it is closed; all of them are undone then."""

    def __init__(self, namespace: int, ruleset: Ruleset, elsewhere_than: int) -> None:
        """Begin; the thread stays off a processor if there is another one.

        Raises:
            OSError: the caller may not enter the namespace.
        """
        self.count = 0
        self._netlink = Netlink(namespace)
        self._chains = ruleset.chains
        self._processors = set(range(os.cpu_count() or 1)) - {elsewhere_than}
        self._changed = threading.Condition()
        self._stopped = False
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop when all changes are undone. Closing more than once does no harm.

        Raises:
            OSError: the kernel refused a change.
        """
        self._stopped = True
        self._thread.join()
        self._netlink.close()
        if self._failure:
            raise self._failure

    def wait(self) -> None:
        """Wait until one more change has been made.

        Raises:
            TimeoutError: the changes have ended, or take too long.
        """
        with self._changed:
            before = self.count
            self._changed.wait_for(lambda: self.count != before or self._failure, _PATIENCE)
            if self.count == before:
                raise TimeoutError(f"no more changes of the ruleset are made: {self._failure}")

    def _work(self) -> None:
        # signals are left to the thread that waits for them
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # there may be no other, or none that we may use
        with suppress(OSError):
            os.sched_setaffinity(0, self._processors)
        try:
            while not self._stopped:
                for chain in self._chains:
                    self._change(chain)
        except OSError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _change(self, chain: RandomChain) -> None:
        """Put a rule in front of a chain, replace the table meanwhile, and remove both."""
        echoed = self._commit(batch([_rule(chain)]))
        for transaction in _TABLES:
            self._commit(transaction)
        handles = [m.attributes[3] for m in echoed if m.command == NftCommand.NEWRULE]
        place = (string(1, chain.table), string(2, chain.name), attribute(3, handles[0]))
        family = _NUMBERS[chain.family]
        self._commit(batch([_message(NftCommand.DELRULE, family, *place)]))

    def _commit(self, transaction: bytes) -> list[SubsystemMessage]:
        """Commit, tell whoever waits, and return what the kernel echoes."""
        echoed = self._netlink.commit(transaction)
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        return echoed


def _rule(chain: RandomChain) -> bytes:
    """A rule in front of a chain's first; the kernel tells us its handle."""
    return _message(
        NftCommand.NEWRULE,
        _NUMBERS[chain.family],
        string(1, chain.table),
        string(2, chain.name),
        attribute(4 | NESTED, *_never()),
        flags=CREATE | ECHO,
    )


def _table(jumps: str) -> Iterator[bytes]:
    """A table with chains at all hooks of the Internet families, whose rules match no packet."""
    yield _message(NftCommand.NEWTABLE, _INET, string(1, COMMITS_TABLE), flags=CREATE)
    names = {hook: string(3, f"base{hook}") for hook in range(_ROUTED)}
    yield _message(
        NftCommand.NEWCHAIN, _INET, string(1, COMMITS_TABLE), string(3, jumps), flags=CREATE
    )
    for hook, name in names.items():
        place = attribute(1, struct.pack("!I", hook)), attribute(2, struct.pack("!i", -5))
        yield _message(
            NftCommand.NEWCHAIN,
            _INET,
            string(1, COMMITS_TABLE),
            name,
            attribute(4 | NESTED, *place),
            string(7, "filter"),
            flags=CREATE,
        )
        verdict = attribute(1, struct.pack("!i", _JUMP)), string(2, jumps)
        jump = _expression(
            "immediate",
            attribute(1, bytes(4)),
            attribute(2 | NESTED, attribute(2 | NESTED, *verdict)),
        )
        yield _message(
            NftCommand.NEWRULE,
            _INET,
            string(1, COMMITS_TABLE),
            string(2, f"base{hook}"),
            attribute(4 | NESTED, *_never(), jump),
            flags=CREATE,
        )


def _never() -> list[bytes]:
    """Expressions that no packet matches."""
    register = attribute(1, struct.pack("!I", _REGISTER))
    mark = attribute(1, struct.pack("=I", _NEVER))
    return [
        _expression("meta", register, attribute(2, struct.pack("!I", _META_MARK))),
        _expression("cmp", register, attribute(2, bytes(4)), attribute(3 | NESTED, mark)),
    ]


def _expression(name: str, *values: bytes) -> bytes:
    return attribute(1 | NESTED, string(1, name), attribute(2 | NESTED, *values))


def _message(command: NftCommand, family: int, *values: bytes, flags: int = 0) -> bytes:
    return request(Subsystem.NFTABLES, command, family, b"".join(values), flags=flags)


_GONE: Final = _message(NftCommand.DELTABLE, _INET, string(1, COMMITS_TABLE))
_TABLES: Final = (
    batch(_table("one")),
    batch([_GONE, *_table("two")]),
    batch([_GONE]),
)
"""The table comes, is replaced in one step, and goes."""
