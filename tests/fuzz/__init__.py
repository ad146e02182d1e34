# SPDX-License-Identifier: GPL-2.0
"""Messages that are nearly right, made from the protocol's own schema, and their results."""
