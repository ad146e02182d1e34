# SPDX-License-Identifier: GPL-2.0
"""Sends requests to the live family, guided by what they reach in the module if KCOV tells."""

from __future__ import annotations

import errno
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from ipttctl.link.wire import resolve_family
from ipttproto import (
    FAMILY,
    Acknowledgement,
    Command,
    Done,
    Message,
    build_request,
    parse_datagram,
)
from tests.fuzz.capabilities import without_bpf
from tests.fuzz.corpus import Corpus
from tests.fuzz.generate import Generator
from tests.fuzz.mutate import Mutator
from tests.fuzz.request import Request
from tests.fuzz.world import World

_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_DATAGRAM: Final = 1 << 18
_ANSWER_SECONDS: Final = 60.0
#: how often a request is sent as it should be
_RIGHT: Final = 0.05
#: how often a request that reached something new is taken up again
_AGAIN: Final = 0.6
#: commands whose replies tell of a change
_TELLING: Final = {Command.ATTACH, Command.SWAP, Command.TRANSACT, Command.DETACH}
#: sequence numbers of requests that ask whether the one before was passed over
_FENCE: Final = 1 << 31


Trace = Callable[[], AbstractContextManager[set[int]]]
"""Makes a context manager that gives a set of the places a block passed, when it has ended."""


@dataclass
class Tally:
    """What came of the messages."""

    errnos: Counter[int] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    passed_over: int = 0
    too_large: int = 0


def _open_socket() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
    for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
        opened.setsockopt(_SOL_NETLINK, option, 1)
    opened.bind((0, 0))
    opened.settimeout(_ANSWER_SECONDS)
    return opened


class Target:
    """The family, on a socket of its own; links that it makes are its own too."""

    def __init__(self) -> None:
        self._socket = _open_socket()
        try:
            self._family = resolve_family(self._socket, FAMILY).id
        except BaseException:
            self._socket.close()
            raise

    def reopen(self) -> None:
        """Go on with another socket: the links of this one go, all in one step."""
        self._socket.close()
        self._socket = _open_socket()

    def send(self, request: Request, sequence: int) -> None:
        """Have the kernel handle a request; its answer waits."""
        with nullcontext() if request.capable else without_bpf():
            self._socket.send(request.build(self._family, sequence))

    def answer(
        self, request: Request, sequence: int, learn: Callable[[Message], None]
    ) -> Acknowledgement | Done | None:
        """What the kernel said to the request; None if it passed over it.

        AssertionError if it says nothing at all.
        """
        if not request.answered:
            fence = _FENCE | sequence
            self._socket.send(build_request(self._family, Command.STATS, {}, sequence=fence))
            return self._until(lambda found: found.sequence == fence, sequence, learn)
        return self._until(lambda found: found.sequence == sequence, sequence, learn)

    def _until(
        self,
        last: Callable[[Acknowledgement | Done], bool],
        sequence: int,
        learn: Callable[[Message], None],
    ) -> Acknowledgement | Done | None:
        answer = None
        while True:
            try:
                data = self._socket.recv(_DATAGRAM)
            except TimeoutError:
                raise AssertionError(f"no answer to message {sequence}") from None
            for message in parse_datagram(self._family, data):
                if isinstance(message, Message):
                    learn(message)
                    continue
                if message.sequence == sequence:
                    answer = message
                if last(message):
                    return answer

    def close(self) -> None:
        """Close the socket: its links go."""
        self._socket.close()


class Campaign:
    """A run of requests; the same seed makes the same ones as long as the kernel answers alike."""

    def __init__(
        self,
        target: Target,
        world: World,
        seed: int,
        trace: Trace | None = None,
    ) -> None:
        """Without ``trace`` (``Kcov.trace``) requests are made blindly."""
        self._target = target
        self._world = world
        self._trace = trace
        self._pick = random.Random(seed)
        self._generator = Generator(world, self._pick)
        self._mutator = Mutator(world, self._generator, self._pick)
        self._sequence = 0
        self.corpus = Corpus()
        self.tally = Tally()

    def next_request(self) -> Request:
        """A right request, one that is nearly right, or a change of one that led somewhere new."""
        if self._pick.random() < _AGAIN and (known := self.corpus.pick(self._pick)):
            self._mutator.refresh(known)
            self._mutator.mutate(known)
            return known
        request = self._generator.request()
        if self._pick.random() >= _RIGHT:
            self._mutator.mutate(request)
        return request

    def run(self, count: int) -> None:
        """Send so many requests."""
        for _ in range(count):
            self._sequence += 1
            self.once(self.next_request())

    def once(self, request: Request) -> Acknowledgement | Done | None:
        """Send a request and take its answer in."""
        passed: set[int] = set()
        try:
            with self._traced(passed):
                self._target.send(request, self._sequence)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self.tally.too_large += 1
            return None
        answer = self._target.answer(request, self._sequence, self._learn)
        if passed:
            self.corpus.consider(request, passed)
        if answer is None:
            self.tally.passed_over += 1
            return None
        self.tally.errnos[answer.errno] += 1
        if isinstance(answer, Acknowledgement) and answer.message:
            self.tally.sentences[answer.message] += 1
        return answer

    @contextmanager
    def _traced(self, passed: set[int]) -> Iterator[None]:
        if self._trace is None:
            yield
            return
        with self._trace() as found:
            yield
        passed |= found

    def _learn(self, message: Message) -> None:
        # a listing tells nothing that changes did not, and takes long to decode
        if message.command in _TELLING:
            self._world.learn(message.command, message.attributes())
