# SPDX-License-Identifier: GPL-2.0
"""The bytes of a frame: a fixed header with lengths and checksums, the head, the body.

The header has a checksum of its own. So a damaged body costs one frame, and its reader goes on
behind it; only after a damaged header it has to look for the next one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

from ipttctl.frames.head import MOST_HEAD, FrameError, FrameHead

MAGIC: Final = b"IPF\x01"
"""The first bytes of a frame, the last of them its version."""

MOST_BODY: Final = 1 << 24
"""Most bytes of a body, also once it is no longer compressed."""

_HEADER: Final = struct.Struct("<4sIIIII")
"""Magic, flags, length of the head, of the body as stored and as it is, CRC32 of both."""

_CHECK: Final = struct.Struct("<I")
"""CRC32 of the header."""

HEADER_SIZE: Final = _HEADER.size + _CHECK.size
"""Bytes before the head."""

_COMPRESSED: Final = 1
_LEVEL: Final = 1
_WORTH_IT: Final = 256
"""Bytes from which on compression is tried."""


class BodyError(FrameError):
    """The body of a frame cannot be decompressed, though its checksum is right."""

    def __init__(self, message: str, head: FrameHead) -> None:
        """It is the frame of ``head``."""
        super().__init__(message)
        self.head = head


class Lengths(NamedTuple):
    """The header of a frame, checked."""

    flags: int
    head: int
    stored: int
    body: int
    check: int

    @property
    def frame(self) -> int:
        """Bytes of the whole frame."""
        return HEADER_SIZE + self.head + self.stored


def encode(head: FrameHead, body: bytes) -> bytes:
    """The bytes of a frame.

    Raises:
        FrameError: the body is too long, or a member of the head out of bounds.
    """
    if len(body) > MOST_BODY:
        raise FrameError(f"the body of a frame has {len(body)} bytes, {MOST_BODY} at most")
    first, stored, flags = head.to_bytes(), body, 0
    if len(body) >= _WORTH_IT:
        smaller = zlib.compress(body, _LEVEL)
        if len(smaller) < len(body):
            stored, flags = smaller, _COMPRESSED
    check = zlib.crc32(stored, zlib.crc32(first))
    header = _HEADER.pack(MAGIC, flags, len(first), len(stored), len(body), check)
    return b"".join((header, _CHECK.pack(zlib.crc32(header)), first, stored))


def decode(
    data: bytes | memoryview, wanted: Callable[[FrameHead], bool] | None = None
) -> tuple[FrameHead, bytes]:
    """Head and body of a frame, which is all of ``data``.

    Nothing is allocated for lengths that the data only claim to have. A body that is not ``wanted``
    is empty: decompression takes most of the time.

    Raises:
        FrameError: the data are no frame, or a damaged one.
        BodyError: its body cannot be decompressed.
    """
    lengths, head, stored = _parts(data)
    if wanted is not None and not wanted(head):
        return head, b""
    if not lengths.flags & _COMPRESSED:
        return head, bytes(stored)
    try:
        return head, _expanded(stored, lengths.body)
    except FrameError as error:
        raise BodyError(str(error), head) from error


def decode_head(data: bytes | memoryview) -> FrameHead:
    """The head of a frame, which is all of ``data``; its body is not looked at.

    Raises:
        FrameError: the data are no frame, or a damaged one.
    """
    return _parts(data)[1]


def _parts(data: bytes | memoryview) -> tuple[Lengths, FrameHead, memoryview]:
    """The header, the head, and the body as it is stored."""
    lengths = read_lengths(data)
    if len(data) != lengths.frame:
        raise FrameError(f"a frame says {lengths.frame} bytes, {len(data)} are there")
    view = memoryview(data)[HEADER_SIZE:]
    if zlib.crc32(view) != lengths.check:
        raise FrameError("a frame is damaged: its checksum is another one")
    return lengths, FrameHead.from_bytes(bytes(view[: lengths.head])), view[lengths.head :]


def read_lengths(data: bytes | memoryview) -> Lengths:
    """The header at the beginning of some bytes, within bounds.

    Raises:
        FrameError: there is none, or a damaged one.
    """
    if len(data) < HEADER_SIZE:
        raise FrameError("a frame is too short for its header")
    magic, *rest = _HEADER.unpack_from(data)
    lengths = Lengths(*rest)
    if magic != MAGIC:
        if magic[:3] == MAGIC[:3]:
            raise FrameError(f"a frame is of version {magic[3]}, which is not known here")
        raise FrameError("the data are no frame")
    (check,) = _CHECK.unpack_from(data, _HEADER.size)
    if check != zlib.crc32(memoryview(data)[: _HEADER.size]):
        raise FrameError("the header of a frame is damaged")
    if lengths.head > MOST_HEAD or max(lengths.stored, lengths.body) > MOST_BODY:
        raise FrameError("a frame says that it is longer than frames may be")
    compressed = lengths.flags == _COMPRESSED
    if lengths.flags & ~_COMPRESSED or not (compressed or lengths.stored == lengths.body):
        raise FrameError("the header of a frame makes no sense")
    return lengths


def _expanded(stored: memoryview, size: int) -> bytes:
    """A compressed body, which says that it has ``size`` bytes."""
    machine = zlib.decompressobj()
    try:
        # one more than there should be, to see whether there is one
        body = machine.decompress(stored, size + 1)
    except zlib.error as error:
        raise FrameError("the body of a frame cannot be decompressed") from error
    if len(body) != size or not machine.eof or machine.unused_data:
        raise FrameError("the body of a frame is not as long as its header says")
    return body
