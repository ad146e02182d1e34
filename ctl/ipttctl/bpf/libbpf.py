# SPDX-License-Identifier: GPL-2.0
"""libbpf: loading it, calling its functions, and the errors that they return."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from functools import cache
from typing import Any

from ipttctl.errors import IpttctlError, PrivilegeError, ProgramError, os_reason


@cache
def libbpf() -> ctypes.CDLL:
    """Load libbpf.

    Raises:
        ProgramError: libbpf is missing or too old.
    """
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name in ("bpf_prog_load", "bpf_map_create", "libbpf_bpf_map_type_str"):
            getattr(library, name)
    except OSError as error:
        raise _no_libbpf(os_reason(error)) from None
    except AttributeError as error:
        raise _no_libbpf(f"it is too old: {error}") from None
    library.libbpf_bpf_prog_type_str.restype = ctypes.c_char_p
    library.libbpf_bpf_map_type_str.restype = ctypes.c_char_p
    # libbpf's hints on standard error repeat our errors.
    library.libbpf_set_print.restype = ctypes.c_void_p
    library.libbpf_set_print(None)
    return library


def _no_libbpf(why: str) -> ProgramError:
    return ProgramError(f"cannot use libbpf: {why}", "run: apt install libbpf1")


def call(function: str, *arguments: Any) -> int:
    """Call a function of libbpf; returns its result, or the negative errno."""
    result = int(getattr(libbpf(), function)(*arguments))
    return -ctypes.get_errno() if result == -1 else result


def failure(
    action: str, number: int, remedy: str = "", needs: str = "CAP_BPF and CAP_PERFMON"
) -> IpttctlError:
    """The error for an action that the kernel refused with an errno.

    ``needs`` are the capabilities that it takes.
    """
    if number == errno.EPERM:
        return PrivilegeError(f"{action}: not permitted", f"run as root, or with {needs}")
    if number in {errno.EMFILE, errno.ENFILE}:
        # not the object's fault: callers take a ProgramError to mean that the object is gone
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return IpttctlError(f"{action}: all {limit} descriptors are in use", "raise `ulimit -n`")
    return ProgramError(f"{action}: {os.strerror(number)}", remedy)
