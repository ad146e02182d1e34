# SPDX-License-Identifier: GPL-2.0
"""Reasons why the host did not do something, in sentences: the agent goes on whatever it was."""

from __future__ import annotations

from ipttctl.errors import IpttctlError, os_reason
from ipttproto import ProtocolError


def reason(error: Exception) -> str:
    """An error of the host in a sentence; one of another kind is a fault of the agent."""
    if isinstance(error, IpttctlError | ProtocolError):
        return str(error)
    if isinstance(error, OSError):
        return os_reason(error)
    return f"the agent failed: {type(error).__name__}: {error}"
