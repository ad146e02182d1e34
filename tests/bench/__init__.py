# SPDX-License-Identifier: GPL-2.0
"""Measurements of the module's cost for a packet, and of commands at their start."""
