# SPDX-License-Identifier: GPL-2.0
"""Record the messages of the module that is loaded, or play recordings to it.

python -m tests.golden              # writes the recording into the directory of the guest's run
python -m tests.golden FILE...      # prints what the module does otherwise than recorded
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ipttctl.link.wire import Connection
from ipttproto import Command, Group, parse_batch
from tests.golden.recording import (
    Answer,
    Exchange,
    Recording,
    current_version,
    definition,
    missing,
    plain,
)
from tests.golden.stage import SCENARIO, Observer, Player, request, stage
from tests.kernel.support.kernel import load_module, settled, unload_module, wait_for
from tests.kernel.support.network import send_udp


def play(exchanges: list[Exchange]) -> tuple[list[Exchange], list[bytes]]:
    """Send requests, and a packet after a list of links; what the module says, and its events."""
    said = []
    batches: list[bytes] = []
    events = Connection.open()
    events.join(Group.EVENTS)
    observer = Observer()
    player = Player()
    with stage():
        for exchange in exchanges:
            errno, replies = player.exchange(exchange.request, dump=exchange.dump)
            said.append(
                Exchange(
                    exchange.command,
                    exchange.attributes,
                    exchange.dump,
                    exchange.request,
                    errno,
                    replies,
                    observer.told(),
                )
            )
            if exchange.dump and exchange.command == "get":
                batches += _events_of_a_packet(events)
        player.close()
    observer.close()
    events.close()
    return said, batches


def _events_of_a_packet(events: Connection) -> list[bytes]:
    send_udp("127.0.0.1", 9, [b"golden"])
    found: list[bytes] = []

    def receive() -> int:
        found.extend(bytes(m.payload) for m in events.receive() if m.command == Command.EVENTS)
        return len(found)

    wait_for(receive, what="events of a packet")
    settled(receive)
    return found


def recording(said: list[Exchange], batches: list[bytes]) -> Recording:
    """Records of a run."""
    rows = [[plain(row) for row in parse_batch(batch).rows()] for batch in batches]
    return Recording(current_version(), definition(), said, batches, rows)


def differences(before: Recording, now: Recording) -> Iterator[str]:
    """Differences of the module from the one that was recorded."""
    for number, (then, said) in enumerate(zip(before.exchanges, now.exchanges, strict=True)):
        what = f"{number}: {then.command}"
        if said.errno != then.errno:
            yield f"{what}: errno {said.errno}, not {then.errno}"
        yield from _other_answers(f"{what}: reply", then.replies, said.replies)
        yield from _other_answers(f"{what}: notification", then.notifications, said.notifications)
    if lost := Counter(before.kinds()) - Counter(now.kinds()):
        yield f"no events of these kinds: {sorted(lost.elements())}"


def _other_answers(what: str, then: list[Answer], now: list[Answer]) -> Iterator[str]:
    commands = [[answer.command for answer in answers] for answers in (then, now)]
    if commands[0] != commands[1]:
        yield f"{what}: {commands[1]}, not {commands[0]}"
        return
    for old, new in zip(then, now, strict=True):
        yield from (f"{what}: no {path}" for path in missing(old.parsed, new.parsed))


def main() -> int:
    """Record, or play; in each case with a module that was just loaded: ids of links begin at 1."""
    wrong = []
    for path in map(Path, sys.argv[1:]):
        before = Recording.read(path)
        _load_again()
        now = recording(*play(before.exchanges))
        wrong += [f"{path.name}: {one}" for one in differences(before, now)]
    if not sys.argv[1:]:
        _load_again()
        now = recording(*play([request(step) for step in SCENARIO]))
        # a guest's standard output loses what is too long
        place = Path(os.environ["IPTT_RUN_DIR"]) / f"{current_version()}.yaml"
        place.write_text(now.text())
        wrong = [
            f"{number}: {step.command.name.lower()}: errno {said.errno}, not {step.errno}"
            for number, (step, said) in enumerate(zip(SCENARIO, now.exchanges, strict=True))
            if said.errno != step.errno
        ]
    for difference in wrong:
        print(difference)
    return int(bool(wrong))


def _load_again() -> None:
    unload_module()
    load_module()


if __name__ == "__main__":
    sys.exit(main())
