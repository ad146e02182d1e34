# SPDX-License-Identifier: GPL-2.0
"""Copies of maps: the counting, where a reading in batches cannot go on. Guests copy real maps."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from ipttctl.bpf import map_copy


def test_entries_that_are_read_again_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(bytes([n, 0, 0, 0]), bytes([n])) for n in range(5)]
    source: Any = SimpleNamespace(
        info=SimpleNamespace(key_size=4), fd=-1, value_size=1, items=lambda: iter(entries)
    )
    written: list[bytes] = []

    def batch(operation: str, fd: int, before: Any, *arguments: Any) -> int:
        """Give the first two entries, then say that the keys change too fast."""
        del operation, fd
        if before is not None:
            return -errno.EINTR
        _, keys, values, count = arguments
        keys[:8] = b"".join(key for key, _ in entries[:2])
        values[:2] = b"".join(value for _, value in entries[:2])
        count._obj.value = 2
        return 0

    def write(target: Any, some: Any) -> tuple[int, int]:
        del target
        written.append(some.values)
        return some.count, 0

    monkeypatch.setattr(map_copy, "_check", lambda *_: None)
    monkeypatch.setattr(map_copy, "_batch", batch)
    monkeypatch.setattr(map_copy, "_write", write)
    assert map_copy.copy_entries(source, source) == 5
    assert written == [b"\0\1", *(value for _, value in entries)]
