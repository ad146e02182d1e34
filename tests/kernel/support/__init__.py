# SPDX-License-Identifier: GPL-2.0
"""Parts that the kernel tests share: programs, networks, the kernel's log and its leftovers."""
