# SPDX-License-Identifier: GPL-2.0
"""A BPF library: system calls, types, maps, programs, their sources and classic filters."""
