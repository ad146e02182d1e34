# SPDX-License-Identifier: GPL-2.0
"""Descriptors of other processes (pidfd_getfd(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import select
from typing import Final

from ipttctl.errors import PrivilegeError, ProgramError, os_reason

_NR_PIDFD_GETFD: Final = 438  # the same on all architectures


def foreign_descriptor(pid: int, fd: int) -> int:
    """Duplicate the descriptor ``fd`` of process ``pid`` into ours.

    Raises:
        ProgramError: there is no such process, it ends meanwhile, or it has no such descriptor.
        PrivilegeError: the caller may not access the process (PTRACE_MODE_ATTACH_REALCREDS).
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        raise ProgramError(f"there is no process {pid}") from None
    except OSError as error:
        raise ProgramError(f"cannot open process {pid}: {os_reason(error)}") from None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        copy = int(libc.syscall(_NR_PIDFD_GETFD, process, fd, 0))
        if copy >= 0:
            return copy
        number = ctypes.get_errno()
        # a process about to end has no descriptors left: some kernels say EBADF
        if number == errno.ESRCH or (number == errno.EBADF and _has_ended(process)):
            raise ProgramError(f"process {pid} has ended, and its fd {fd} with it")
        if number == errno.EBADF:
            raise ProgramError(f"process {pid} has no fd {fd} open", f"see: ls -l /proc/{pid}/fd")
        if number == errno.EPERM:
            raise PrivilegeError(
                f"cannot take fd {fd} of process {pid}: not permitted",
                "run as root, or with CAP_SYS_PTRACE",
            )
        raise ProgramError(f"cannot take fd {fd} of process {pid}: {os.strerror(number)}")
    finally:
        os.close(process)


def _has_ended(process: int) -> bool:
    """Whether the process of a pidfd is gone, or a zombie."""
    poll = select.poll()  # select() only takes descriptors below 1024
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))
