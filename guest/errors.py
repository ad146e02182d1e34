# SPDX-License-Identifier: GPL-2.0
"""Failures around a guest, as opposed to failures of the command in it."""

from __future__ import annotations


class GuestError(Exception):
    """The guest, not the command in it, failed; the command proved nothing."""


class KernelMissingError(GuestError):
    """There is no installed kernel of the wanted series with both image and headers."""


class GuestSetupError(GuestError):
    """The guest booted but could not be prepared (mounts, module)."""


class GuestLostError(GuestError):
    """The guest ended without reporting a status: panic, timeout, or QEMU died.

    ``console_tail`` holds the last lines of its console.
    """

    def __init__(self, reason: str, console_tail: str) -> None:
        super().__init__(reason)
        self.console_tail = console_tail

    def __str__(self) -> str:
        return f"{self.args[0]}\n--- end of the guest's console ---\n{self.console_tail}"
