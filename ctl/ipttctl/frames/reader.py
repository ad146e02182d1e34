# SPDX-License-Identifier: GPL-2.0
"""The frames of a file, of which parts may be damaged or missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from ipttctl.frames.codec import HEADER_SIZE, MAGIC, BodyError, decode, read_lengths
from ipttctl.frames.head import FrameError, FrameHead

_SEARCHED: Final = 1 << 16
"""Bytes that are searched at a time for the next frame."""


class FrameReader:
    """Iterates over the frames of a file.

    After a damaged frame it goes on with the next one. So it does where a frame says that it is
    longer than the file, if another one is behind its beginning that ends within the file: bytes
    are missing in the middle then. A file whose writer was ended in the middle of a frame ends
    before it. Every byte is read once, whatever the file says.
    """

    def __init__(
        self,
        file: BinaryIO,
        wanted: Callable[[FrameHead], bool] | None = None,
        unreadable: Callable[[FrameHead, int], None] | None = None,
    ) -> None:
        """Read a file from where it is; bodies that are not ``wanted`` are left out.

        ``unreadable`` gets the heads and sizes of frames whose bodies cannot be decompressed. They
        are frames that were passed over without it.
        """
        self._unreadable = unreadable
        self._file = file
        self._wanted = wanted
        #: bytes that were read, and how many of them are done with
        self._read = b""
        self._done = 0
        #: where these bytes begin
        self._base = file.tell()
        self.begin = self._base
        """Place of the frame that came last, in bytes from the beginning of the file."""
        self._ended = False
        self.damaged = 0
        """Frames, or other stretches of bytes, that were passed over."""
        self.skipped = 0
        """Bytes of them."""
        self.torn = False
        """Whether the file ends within a frame."""

    def __iter__(self) -> Iterator[tuple[FrameHead, bytes]]:
        while data := self._next(HEADER_SIZE):
            try:
                lengths = read_lengths(data)
            except FrameError:
                if MAGIC.startswith(data[: len(MAGIC)]) and len(data) < HEADER_SIZE:
                    self.torn = True
                    return
                self._search()
                continue
            if not self._has(lengths.frame):
                if self._resume():
                    continue
                self.torn = True
                return
            frame = self._next(lengths.frame)
            self.begin = self._base + self._done
            self._done += lengths.frame
            try:
                yield decode(frame, self._wanted)
            except BodyError as error:
                if self._unreadable is None:
                    self._pass_over(lengths.frame)
                else:
                    self._unreadable(error.head, lengths.frame)
            except FrameError:
                self._pass_over(lengths.frame)

    def _resume(self) -> bool:
        """Go on to a later frame that the rest of the file, which is read, has whole."""
        rest = memoryview(self._read)
        at = self._done
        while (at := self._read.find(MAGIC, at + 1)) >= 0:
            try:
                # that of a damaged body too: it is passed over as a whole, and not searched again
                size = read_lengths(rest[at : at + HEADER_SIZE]).frame
            except FrameError:
                continue
            if at + size <= len(self._read):
                self._pass_over(at - self._done)
                self._done = at
                return True
        return False

    def _pass_over(self, size: int) -> None:
        self.damaged += 1
        self.skipped += size

    def _next(self, size: int) -> bytes:
        """The next bytes, which are not done with by that; less than ``size`` at the end."""
        self._has(size)
        return self._read[self._done : self._done + size]

    def _has(self, size: int) -> bool:
        """Whether so many bytes are left, which are read then."""
        there = len(self._read) - self._done
        # at the end nothing is copied: a file may have many frames that say they are longer
        if there < size and not self._ended:
            more = self._file.read(size - there)
            self._ended = len(more) < size - there
            self._base += self._done
            self._read, self._done = self._read[self._done :] + more, 0
            there += len(more)
        return there >= size

    def _search(self) -> None:
        """Go on to the magic behind the next byte, or to the end of the file."""
        self._pass_over(0)
        begin = self._done + 1
        while (at := self._read.find(MAGIC, begin)) < 0:
            # the magic may lie across the two
            kept = max(begin, len(self._read) - len(MAGIC) + 1)
            self.skipped += kept - self._done
            more = self._file.read(_SEARCHED)
            self._base += kept
            self._read, self._done, begin = self._read[kept:] + more, 0, 0
            if not more:
                at = len(self._read)
                break
        self.skipped += at - self._done
        self._done = at
