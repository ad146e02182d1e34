# SPDX-License-Identifier: GPL-2.0
"""Recordings: files with the events of a trace, its stories, and the names that these need."""
