# SPDX-License-Identifier: GPL-2.0
"""Nearly valid messages, made from the protocol's own schema, and their results."""
