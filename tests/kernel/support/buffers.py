# SPDX-License-Identifier: GPL-2.0
"""Records that programs wrote to ring buffers and perf buffers."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ipttctl.bpf.syscalls import create_map, possible_cpus, update

_RINGBUF, _PERF_EVENT_ARRAY = 27, 4
_PAGE = mmap.PAGESIZE
_BUSY_OR_DISCARDED = 0xC0000000

_NR_PERF_EVENT_OPEN = 298  # x86-64
_SOFTWARE, _BPF_OUTPUT, _SAMPLE_RAW, _SAMPLE = 1, 10, 1 << 10, 9
_ENABLE = 0x2400
_DATA_HEAD = 1024
_PERF_PAGES = 8


class RingBuffer:
    """A ring buffer of one page."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def records(self) -> list[bytes]:
        """All records since the start; AssertionError if one is incomplete."""
        with mmap.mmap(self.fd, 3 * _PAGE, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE) as view:
            (end,) = struct.unpack_from("=Q", view, 0)
            assert end < _PAGE, "the buffer went around"
            found, place = [], 0
            while place < end:
                (length,) = struct.unpack_from("=I", view, _PAGE + place)
                assert not length & _BUSY_OR_DISCARDED
                found.append(view[_PAGE + place + 8 : _PAGE + place + 8 + length])
                place += (length + 8 + 7) // 8 * 8
            return found


@contextmanager
def ring_buffer() -> Iterator[RingBuffer]:
    """A ring buffer map."""
    fd = create_map("ring", map_type=_RINGBUF, key_size=0, value_size=0, max_entries=_PAGE, flags=0)
    try:
        yield RingBuffer(fd)
    finally:
        os.close(fd)


class PerfBuffers:
    """A perf buffer on every CPU."""

    def __init__(self, fd: int, views: list[mmap.mmap]) -> None:
        self.fd = fd
        self._views = views

    def records(self) -> list[bytes]:
        """All records since the start, CPU by CPU, without the padding that perf adds."""
        found = []
        for view in self._views:
            (end,) = struct.unpack_from("=Q", view, _DATA_HEAD)
            assert end < _PERF_PAGES * _PAGE, "the buffer went around"
            place = 0
            while place < end:
                kind, _, length = struct.unpack_from("=IHH", view, _PAGE + place)
                if kind == _SAMPLE:
                    (size,) = struct.unpack_from("=I", view, _PAGE + place + 8)
                    found.append(view[_PAGE + place + 12 : _PAGE + place + 12 + size])
                place += length
        return found


def _perf_event(cpu: int) -> int:
    # struct perf_event_attr up to wakeup_events: type, size, config, period, sample_type, ...
    attributes = struct.pack("=IIQQQQQI", _SOFTWARE, 112, _BPF_OUTPUT, 1, _SAMPLE_RAW, 0, 0, 1)
    buffer = ctypes.create_string_buffer(attributes, 112)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(_NR_PERF_EVENT_OPEN, buffer, -1, cpu, -1, 8))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open")
    return fd


@contextmanager
def perf_buffers() -> Iterator[PerfBuffers]:
    """A map of perf buffers, one on each CPU."""
    with ExitStack() as stack:
        array = create_map(
            "perf",
            map_type=_PERF_EVENT_ARRAY,
            key_size=4,
            value_size=4,
            max_entries=possible_cpus(),
            flags=0,
        )
        stack.callback(os.close, array)
        views = []
        for cpu in range(os.cpu_count() or 1):
            event = _perf_event(cpu)
            stack.callback(os.close, event)
            view = mmap.mmap(event, (1 + _PERF_PAGES) * _PAGE)
            stack.callback(view.close)
            views.append(view)
            fcntl.ioctl(event, _ENABLE, 0)
            update(array, cpu.to_bytes(4, "little"), event.to_bytes(4, "little"))
        yield PerfBuffers(array, views)
