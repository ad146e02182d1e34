# SPDX-License-Identifier: GPL-2.0
"""The one error that this package raises."""


class ProtocolError(ValueError):
    """Bytes or values that the protocol does not allow; the message says which and why."""
