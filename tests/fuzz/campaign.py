# SPDX-License-Identifier: GPL-2.0
"""Send requests to the live family, guided by their coverage of the module if KCOV is available."""

from __future__ import annotations

import errno
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from ipttctl.link.family import resolve_family
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
from tests.fuzz.refusals import Formatted
from tests.fuzz.request import Request
from tests.fuzz.world import World

_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_DATAGRAM: Final = 1 << 18
_ANSWER_SECONDS: Final = 60.0
#: how often a valid request is sent unchanged
_RIGHT: Final = 0.05
#: how often a request that reached something new is used again
_AGAIN: Final = 0.6
#: commands whose replies describe a change
_TELLING: Final = {
    Command.ATTACH,
    Command.SWAP,
    Command.TRANSACT,
    Command.DETACH,
    Command.RENAME,
    Command.RELEASE,
}
#: sequence numbers of requests that ask whether the kernel passed over the one before
_FENCE: Final = 1 << 31


Trace = Callable[[], AbstractContextManager[set[int]]]
"""Makes context managers; each gives a set that holds, after the block, the places passed."""


@dataclass
class Tally:
    """The results of the messages."""

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
    """The family, on a socket of its own; the links that it makes belong to it."""

    def __init__(self) -> None:
        self._socket = _open_socket()
        try:
            self._family = resolve_family(self._socket, FAMILY).id
        except BaseException:
            self._socket.close()
            raise

    def reopen(self) -> None:
        """Continue with another socket: the links of the old one are removed in one step."""
        self._socket.close()
        self._socket = _open_socket()

    def send(self, request: Request, sequence: int) -> None:
        """Have the kernel handle a request; its answer stays in the socket."""
        with nullcontext() if request.capable else without_bpf():
            self._socket.send(request.build(self._family, sequence))

    def answer(
        self, request: Request, sequence: int, learn: Callable[[Message], None]
    ) -> Acknowledgement | Done | None:
        """The kernel's answer to the request; None if the kernel passed over it.

        AssertionError if there is no answer at all.
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
        """Close the socket, which removes its links."""
        self._socket.close()


class Campaign:
    """A run of requests; the same seed makes the same ones if the kernel gives the same answers."""

    def __init__(
        self,
        target: Target,
        world: World,
        seed: int,
        trace: Trace | None = None,
    ) -> None:
        """Without ``trace`` (``Kcov.trace``) there is no guidance."""
        self._target = target
        self._world = world
        self._trace = trace
        self._pick = random.Random(seed)
        self._generator = Generator(world, self._pick)
        self._mutator = Mutator(world, self._generator, self._pick)
        self._sequence = 0
        self._formatted = Formatted()
        self.corpus = Corpus()
        self.tally = Tally()

    def next_request(self) -> Request:
        """A valid request, a nearly valid one, or a change of one that reached something new."""
        if self._pick.random() < _AGAIN and (known := self.corpus.pick(self._pick)):
            self._mutator.refresh(known)
            self._mutator.mutate(known)
            return known
        request = self._generator.request()
        if self._pick.random() >= _RIGHT:
            self._mutator.mutate(request)
        return request

    def run(self, count: int) -> None:
        """Send ``count`` messages."""
        for _ in range(count):
            self._sequence += 1
            self.once(self.next_request())

    def once(self, request: Request) -> Acknowledgement | Done | None:
        """Send a request and process its answer."""
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
        if not answer.errno and isinstance(answer, Acknowledgement):
            self._world.done(request.command)
        if isinstance(answer, Acknowledgement) and answer.message:
            self.tally.sentences[self._formatted.plain(answer.message)] += 1
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
        # a dump says nothing that the changes did not, and takes long to decode
        if message.command in _TELLING:
            self._world.learn(message.command, message.attributes())
