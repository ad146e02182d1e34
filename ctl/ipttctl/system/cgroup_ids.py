# SPDX-License-Identifier: GPL-2.0
"""Cgroups of the unified hierarchy by their ids, which are their inode numbers."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Final

#: where the unified hierarchy is, alone or beside those of version 1
_MOUNTS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
#: a file that every cgroup of the unified hierarchy has, and none of version 1
_CONTROLLERS: Final = "cgroup.controllers"
#: type of a handle that is an id of kernfs (enum fid_type: FILEID_KERNFS)
_OF_KERNFS: Final = 0xFE
_MOST_KNOWN: Final = 4096


class _Handle(ctypes.Structure):
    """struct file_handle with the id of a cgroup (open_by_handle_at(2))."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("id", ctypes.c_uint64),
    )


class CgroupIds:
    """Finds the paths of cgroups; it needs CAP_DAC_READ_SEARCH, and finds none without."""

    def __init__(self, mounts: tuple[Path, ...] = _MOUNTS) -> None:
        """Look at the first of ``mounts`` that is a unified hierarchy."""
        found = (one for one in mounts if (one / _CONTROLLERS).exists())
        self._mount = next(found, None)
        self.path = lru_cache(maxsize=_MOST_KNOWN)(self._path)

    def _path(self, number: int) -> str:
        """The path of a cgroup by its id; empty if it is gone, or cannot be seen."""
        if self._mount is None or not number:
            return ""
        opener = getattr(ctypes.CDLL(None, use_errno=True), "open_by_handle_at", None)
        if opener is None:
            return ""
        try:
            mount = os.open(self._mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return ""
        handle = _Handle(ctypes.sizeof(ctypes.c_uint64), _OF_KERNFS, number)
        try:
            found = opener(mount, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC)
        finally:
            os.close(mount)
        if found < 0:
            return ""
        try:
            path = Path(f"/proc/self/fd/{found}").readlink()
        finally:
            os.close(found)
        if not path.is_relative_to(self._mount):
            return ""
        below = path.relative_to(self._mount)
        return "/" if below == Path() else f"/{below}"
