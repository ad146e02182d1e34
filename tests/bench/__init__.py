# SPDX-License-Identifier: GPL-2.0
"""Measurements of the cost of links for a packet and for others, and of commands at their start."""
