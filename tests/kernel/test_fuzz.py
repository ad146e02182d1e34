# SPDX-License-Identifier: GPL-2.0
"""Messages that are nearly right, at the live family: refused with an errno, nothing left.

make test-kernel TESTS="tests/kernel/test_fuzz.py" FUZZ=1000000 SEED=7
"""

from __future__ import annotations

import os
import random
import socket
from collections import Counter

from ipttctl.controller import Controller
from ipttctl.objects import ProgramSet
from ipttctl.wire import resolve_family
from ipttproto import FAMILY, Acknowledgement, Done, Slot, parse_datagram
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.fuzzing import Fuzzer
from tests.kernel.support.kernel import redirected_functions

MESSAGES = int(os.environ.get("IPTT_FUZZ", "20000"))
SEED = int(os.environ.get("IPTT_SEED", "1"))
#: links that messages made are removed after so many messages
ROUND = 500


def test_nearly_right_messages(controller: Controller, make_program: MakeProgram) -> None:
    print(f"{MESSAGES} messages, seed {SEED}")
    answers: Counter[int] = Counter()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as sender:
        sender.bind((0, 0))
        sender.settimeout(30)
        family = resolve_family(sender, FAMILY)
        fuzzer = Fuzzer(family.id, (make_program().fd,), random.Random(SEED))
        for number in range(1, MESSAGES + 1):
            sender.send(fuzzer.message(number))
            answers[_answer(sender, family.id, number)] += 1
            if number % ROUND == 0:
                for link in controller.links():
                    controller.detach(link.id)
    print(dict(answers))
    for link in controller.links():
        controller.detach(link.id)
    assert sum(answers.values()) == MESSAGES
    # most are refused, for many reasons, and some are not
    assert len(answers) > 5
    assert 0 < answers[0] < MESSAGES / 2
    assert redirected_functions() == []
    good = controller.attach(ProgramSet({Slot.ENTRY: make_program().fd}))
    controller.detach(good.id)


def _answer(sender: socket.socket, family_id: int, sequence: int) -> int:
    """Read until the request is answered; the errno of the answer."""
    while True:
        for message in parse_datagram(family_id, sender.recv(1 << 18)):
            if isinstance(message, (Acknowledgement, Done)) and message.sequence == sequence:
                return message.errno
