# SPDX-License-Identifier: GPL-2.0
"""The ledger of the stream over restarts of the agent: an agent goes on with that of before."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from msgspec.structs import replace
from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from ipttctl.errors import IpttctlError
from ipttctl.fleet.earlier import Earlier, read_earlier
from ipttctl.fleet.ledger import (
    STREAM,
    UNKNOWN,
    KeptMessage,
    Losses,
    StreamLedger,
    condensed,
    said,
    to_say,
)
from ipttctl.fleet.ledger_file import MOST_ENTRIES, LedgerNote, read_note, write_note
from ipttctl.frames.seen import Seen

_PAUSE: Final = 30.0
"""Seconds between two notes, unless something is lost: what is stored meanwhile can be read."""

_PAUSE_LOST: Final = 10.0
"""Seconds between two notes because something is lost: a stream at its bound loses steadily."""

_NANO: Final = 1_000_000_000


@dataclass
class _Beginning:
    """Things to begin with: a note, and what was read so far of a stream."""

    created: float
    """When the stream was made."""
    note: LedgerNote | None
    same: LedgerNote | None
    """The note, if it is of this stream."""
    earlier: Earlier


class LedgerKeeper:
    """Notes a ledger in a file, and begins it with what the agent before has noted there.

    Messages that were stored after the note are read from the stream, and so is what they say of
    losses. Losses are noted before they are said: they are said once, whenever an agent is killed.
    """

    def __init__(
        self, ledger: StreamLedger, place: Path, host: str, run: str, tell: Callable[[str], None]
    ) -> None:
        """Keep the file at ``place``; ``tell`` takes sentences for the log."""
        self.ledger = ledger
        self._place = place
        self._host = host
        self._run = run
        self._tell = tell
        self._begun = False
        self._beginning: _Beginning | None = None
        self._created = 0.0
        #: when the file was written, and what it was written of
        self._written = float("-inf")
        #: when it was written because something was lost
        self._lost = float("-inf")
        self._noted: object = None
        self._problem = ""
        #: threads write, and a task that is cancelled does not wait for its own
        self._writing = threading.Lock()

    async def begin(self, js: JetStreamContext, stream: str, info: StreamInfo | None) -> Losses:
        """Begin the ledger, unless it is begun; returns what was lost and is not said.

        ``info`` is of the stream as it was left, None if there is none.

        Raises:
            nats.errors.Error: the connection is gone, or slow; nothing is begun, and what was read
                is kept until this is called again.
        """
        if self._begun:
            return Counter()
        first, last = (info.state.first_seq, info.state.last_seq) if info else (1, 0)
        created = _moment(info) if info else 0.0
        if not self._beginning or self._beginning.created != created:
            note = await asyncio.to_thread(self._read, first > 1)
            self._beginning = _beginning(note, created, last)
        begun = self._beginning
        same, earlier = begun.same, begun.earlier
        await read_earlier(js, stream, self._host, range(first, last + 1), earlier)
        self._begun, self._beginning = True, None
        if not earlier.allowed:
            self._tell(
                f"what {stream} throws away of what it had before is not counted: its messages "
                f"cannot be read; have the right to publish $JS.API.STREAM.MSG.GET.{stream}"
            )
        lost = to_say(self._go_on(same, first, last) if same else self._go_on(begun.note, 1, 0))
        # they came after the note
        if same and earlier.gone and same.written + self.ledger.age > time.time():
            gone = Counter({UNKNOWN: earlier.gone})
            lost += to_say(gone)
            self.ledger.count(gone)
        if same and earlier.complete:
            unsaid = _unsaid(same) - _said(same.run, earlier)
            self.ledger.unsaid += unsaid
            lost += unsaid
        self._add(earlier)
        self.ledger.remember(last)
        return lost

    async def note(
        self, info: StreamInfo | None = None, *, at_once: bool = False, lost: bool = False
    ) -> bool:
        """Write the file if there is something new, ``at_once`` or after a while.

        That is shorter where something is ``lost``, but for the first time. ``info`` is of the
        stream if that was asked. Returns whether losses may be said, which are in the file then.
        """
        if info is not None:
            self._created = _moment(info)
        now, ledger = time.monotonic(), self.ledger
        due = self._lost + _PAUSE_LOST if lost else self._written + _PAUSE
        if not (self._begun and self._created and (at_once or now >= due)):
            return False
        if lost:
            self._lost = now
        state = self._created, ledger.recent.copy(), ledger.lost.copy(), ledger.unsaid.copy()
        if state != self._noted:
            self._written, self._noted = now, state
            await asyncio.to_thread(self._write, self._content(), ledger.kept())
        return True

    def _go_on(self, note: LedgerNote | None, first: int, last: int) -> Counter[str]:
        """Take over what was noted; returns what the stream has no more, by kind."""
        for number, kind, items, sent in note.messages if note else ():
            self.ledger.add(KeptMessage(number, kind, items, self._expires(sent)))
        return self.ledger.take(first, last, self.ledger.newest)

    def _add(self, earlier: Earlier) -> None:
        """Take note of messages that were stored after the last note."""
        seen = Seen()
        for number, head in earlier.heads.items():
            if head.count and seen.first(head):
                expires = self._expires(head.time / _NANO)
                self.ledger.add(KeptMessage(number, head.kind, head.count, expires))
        for part, made in earlier.unread:
            expires = self._expires(made / _NANO)
            self.ledger.add(KeptMessage(part[-1], UNKNOWN, len(part), expires))

    def _expires(self, sent: float) -> float:
        """The end of a message by its age, on the monotonic clock; it was not sent in the future.

        Where somebody has said that it was, or clocks are wrong, it is from now on.
        """
        return time.monotonic() + self.ledger.age + min(0.0, sent - time.time())

    def _content(self) -> LedgerNote:
        """The note, but for the messages."""
        ledger = self.ledger
        return LedgerNote(
            created=self._created,
            written=time.time(),
            run=self._run,
            known=ledger.recent.copy(),
            unsaid=_by_kind(ledger.unsaid, STREAM),
            unknown=_by_kind(ledger.unsaid, UNKNOWN),
            messages=[],
        )

    def _read(self, lacks: bool) -> LedgerNote | None:
        """The note of before; ``lacks`` says whether the stream has lost messages."""
        try:
            note = read_note(self._place)
        except IpttctlError as error:
            self._tell(f"{error}; what the stream threw away before is not known")
            return None
        if note is None and lacks:
            self._tell(f"there is no {self._place}: what the stream threw away before is not known")
        return note

    def _write(self, note: LedgerNote, kept: list[KeptMessage]) -> None:
        """Write a note with the messages; in a thread, since there may be many of them."""
        ahead = time.time() - time.monotonic() - self.ledger.age
        messages = [
            (one.number, one.kind, one.items, one.expires + ahead)
            for one in condensed(kept, MOST_ENTRIES)
        ]
        with self._writing:
            try:
                write_note(self._place, replace(note, messages=messages))
            except IpttctlError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    self._tell(f"{error}; after a restart less is counted of what is lost")
            else:
                self._problem = ""


def _beginning(note: LedgerNote | None, created: float, last: int) -> _Beginning:
    """Begin with a note, which may be of another stream than the one made at ``created``."""
    if note is None or not created or abs(created - note.created) >= 1:
        return _Beginning(created, note, None, Earlier())
    # higher ones were not written when the power failed, or something else gave them
    known = frozenset(number for number in note.known if number <= last)
    return _Beginning(created, note, note, Earlier(known, min(known, default=last)))


def _by_kind(unsaid: Losses, cause: str) -> dict[Literal["events", "stories"], int]:
    """The losses by one cause that no frame says, as a note has them."""
    kinds: tuple[Literal["events"], Literal["stories"]] = ("events", "stories")
    return {kind: unsaid[kind, cause] for kind in kinds if unsaid[kind, cause]}


def _unsaid(note: LedgerNote) -> Losses:
    """The losses that no frame had said by the time of a note."""
    by_cause = {STREAM: note.unsaid, UNKNOWN: note.unknown}
    return Counter(
        {(kind, cause): n for cause, kinds in by_cause.items() for kind, n in kinds.items()}
    )


def _said(run: str, earlier: Earlier) -> Losses:
    """The losses that frames of a run have said."""
    found: Losses = Counter()
    seen = Seen()
    for head in earlier.heads.values():
        if head.run == run and seen.first(head):
            found += said(head)
    return found


def _moment(info: StreamInfo) -> float:
    """The time at which a stream was made."""
    made: object = info.created
    # older versions of nats-py give the server's text
    if isinstance(made, str):
        made = datetime.fromisoformat(made)
    return made.timestamp() if isinstance(made, datetime) else 0.0
