# SPDX-License-Identifier: GPL-2.0
"""Measurements: what the module costs a packet."""
