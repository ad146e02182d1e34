# SPDX-License-Identifier: GPL-2.0
"""The only error that this package raises."""


class ProtocolError(ValueError):
    """Bytes or values violate the protocol; the message says which and why."""
