# SPDX-License-Identifier: GPL-2.0
"""Kernels with debugging built in, made from Debian's kernel source and kept in a cache."""
