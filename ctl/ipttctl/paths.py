# SPDX-License-Identifier: GPL-2.0
"""What lies beside the Python code: the sources of the module and of the BPF programs.

They are data of this package, in a wheel and where it is installed. In a checkout they are
symbolic links to where they are worked on. Compilers read them, so that they have to be files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

VERSION: Final = "0.1.0"
"""Of the controller; the module and its DKMS configuration say the same."""

_SOURCES: Final = Path(__file__).with_name("sources")


def module_directory() -> Path:
    """The module's source, with the header of the protocol; there may be none."""
    return (_SOURCES / "kmod_netlink").resolve()


def programs_directory() -> Path:
    """The sources of the BPF programs and the contract they are written against."""
    return (_SOURCES / "bpf").resolve()
