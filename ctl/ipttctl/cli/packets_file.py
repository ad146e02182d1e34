# SPDX-License-Identifier: GPL-2.0
"""The packets of a recording, written with their stories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ipttctl.cli.recorded import play
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.trace_stories import StoryView
from ipttctl.errors import UsageError, os_reason
from ipttctl.events import describe
from ipttctl.events.records import decode_event
from ipttctl.paths import VERSION
from ipttctl.recordings.excerpt import Excerpt
from ipttctl.recordings.kept_packet import kept_bytes
from ipttctl.recordings.new_file import check_target, new_file
from ipttctl.recordings.pcapng import CapturedPacket, PcapngWriter
from ipttctl.recordings.reader import Events, Recording
from ipttctl.recordings.writer import RecordingError
from ipttctl.show.story_text import StoryText
from ipttctl.stories.model import Story
from ipttproto import JoinedBatches

_WIDTH: Final = 1 << 20
_LAST: Final = 2**64 - 1
"""The last time that the form has (ns)."""


def write_packets(recording: Recording, path: Path, *, replace: bool) -> int:
    """Write the packets of a recording; returns their number.

    Raises:
        UsageError: the recording has no bytes of packets, or the file is there already.
        RecordingError: the file cannot be written.
    """
    check_packets(recording, path, replace=replace)
    comments = _Comments(recording)
    if recording.stories:
        comments.play()
    count = 0
    try:
        with new_file(path, replace=replace, read=recording.path) as file:
            writer = PcapngWriter(file, f"ipttctl {VERSION}", recording.snaplen)
            for packet in _packets(recording, comments.texts):
                writer.write(packet)
                count += 1
    except OSError as error:
        raise RecordingError(f"{path}: {os_reason(error)}") from error
    return count


def check_packets(recording: Recording, path: Path, *, replace: bool) -> None:
    """Check that the packets of a recording may be written to a file.

    Raises:
        UsageError: the recording has no bytes of packets, or the file is there already.
        RecordingError: there can be no such file.
    """
    if not recording.snaplen:
        raise UsageError(
            f"{recording.path} has no bytes of packets, and headers are not made up",
            "record with --snaplen",
        )
    try:
        check_target(path, replace=replace, read=recording.path)
    except OSError as error:
        raise RecordingError(f"{path}: {os_reason(error)}") from error


class _Comments:
    """The texts of the stories of a recording, by the numbers of their packets."""

    quiet = True
    timeout: float | None = None

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.sources = recording.answers.sources(rules=True)
        self._text = StoryText(_WIDTH, verbose=False, colour=False, sources=self.sources)
        self.texts: dict[int, str] = {}

    def play(self) -> None:
        """Have all stories told."""
        recording = self._recording
        options = StoryOptions(patience=recording.patience / 1_000_000_000)
        play(Excerpt(recording), StoryView(self, options, self, recording.links, None))

    def begin(self, moment: int) -> None:
        """Do nothing: texts have the times of day."""

    def show(self, stories: Sequence[Story]) -> None:
        """Keep the texts of stories."""
        for story in stories:
            self.texts[story.number] = "\n".join(self._text.lines([story])).strip("\n")

    def idle(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def learn(self, events: JoinedBatches) -> None:
        """Do nothing: the recording has looked up everything."""


def _packets(recording: Recording, comments: dict[int, str]) -> Iterator[CapturedPacket]:
    """The first bytes of each packet that is followed, and those of all others."""
    seen: set[int] = set()
    for item in recording.items():
        if not isinstance(item, Events):
            continue
        events = JoinedBatches.of(item.batches)
        for place, payload in sorted(events.payloads.items()):
            record = decode_event(events, place)
            kept = kept_bytes(payload)
            if record.packet in seen or kept is None or record.link not in recording.links:
                continue
            if record.packet:
                seen.add(record.packet)
            device = describe.text(record.in_name) or describe.text(record.out_name) or "?"
            comment = comments.get(record.packet, "")
            time = record.time + record.clock_offset
            if not 0 <= time <= _LAST:
                raise RecordingError(f"{recording.path}: an event has a time that none can have")
            yield CapturedPacket(time, device, kept.length, kept.bits, comment)
