# SPDX-License-Identifier: GPL-2.0
"""Frames: the unit that is written to a recording and published to a stream."""
