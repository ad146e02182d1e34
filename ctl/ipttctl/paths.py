# SPDX-License-Identifier: GPL-2.0
"""Paths of files beside the Python code: the module's sources, BPF programs and their sources.

In a wheel and where it is installed they are package data. In a checkout they are symbolic links to
the working copies. They have to be files, because compilers read them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

VERSION: Final = "0.1.0"
"""Version of the controller, the same as the module's and its DKMS configuration's."""

_SOURCES: Final = Path(__file__).with_name("sources")


def module_directory() -> Path:
    """The directory of the module's source, with the protocol's header; it may be missing."""
    return (_SOURCES / "kmod_netlink").resolve()


def programs_directory() -> Path:
    """The directory of the BPF programs' sources and of the contract, ipttrace.h."""
    return (_SOURCES / "bpf").resolve()


def object_file(name: str) -> Path:
    """A BPF program of ours as an object file for this machine, as ``trace.o``.

    It is there where the package was built with clang; a checkout has none.
    """
    return Path(__file__).with_name("objects") / os.uname().machine / name
