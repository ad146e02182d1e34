# SPDX-License-Identifier: GPL-2.0
"""Packet events: records, and the names behind their numbers."""
