# SPDX-License-Identifier: GPL-2.0
"""The frames of a file, of which parts may be damaged or missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from ipttctl.frames.codec import HEADER_SIZE, MAGIC, decode, read_lengths
from ipttctl.frames.head import FrameError, FrameHead

_SEARCHED: Final = 1 << 16
"""Bytes that are searched at a time for the next frame."""


class FrameReader:
    """Iterates over the frames of a file.

    After a damaged frame it goes on with the next one. A file whose writer was ended in the middle
    of a frame ends before it. Every byte is read once or twice, whatever the file says.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read a file from where it is."""
        self._file = file
        self.damaged = 0
        """Frames, or other stretches of bytes, that were passed over."""
        self.skipped = 0
        """Bytes of them."""
        self.torn = False
        """Whether the file ends within a frame."""

    def __iter__(self) -> Iterator[tuple[FrameHead, bytes]]:
        data = self._file.read(HEADER_SIZE)
        while data:
            try:
                lengths = read_lengths(data)
            except FrameError:
                if MAGIC.startswith(data[: len(MAGIC)]) and len(data) < HEADER_SIZE:
                    self.torn = True
                    return
                data = self._search(data)
                continue
            rest = self._file.read(lengths.frame - HEADER_SIZE)
            if len(rest) < lengths.frame - HEADER_SIZE:
                self.torn = True
                return
            try:
                yield decode(data + rest)
            except FrameError:
                self._pass_over(lengths.frame)
            data = self._file.read(HEADER_SIZE)

    def _pass_over(self, size: int) -> None:
        self.damaged += 1
        self.skipped += size

    def _search(self, data: bytes) -> bytes:
        """The next header after the first byte of ``data``; nothing at the end of the file."""
        self._pass_over(0)
        before = data
        at = before.find(MAGIC, 1)
        while at < 0:
            more = self._file.read(_SEARCHED)
            if not more:
                self.skipped += len(before)
                return b""
            # the magic may lie across the two
            kept = before[-(len(MAGIC) - 1) :] if len(before) >= len(MAGIC) else before[1:]
            self.skipped += len(before) - len(kept)
            before = kept + more
            at = before.find(MAGIC)
        self.skipped += at
        found = before[at : at + HEADER_SIZE]
        self._file.seek(at + len(found) - len(before), 1)
        return found + self._file.read(HEADER_SIZE - len(found))
