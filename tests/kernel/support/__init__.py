# SPDX-License-Identifier: GPL-2.0
"""Shared parts of the kernel tests: programs, networks, the kernel's log and its leftovers."""
