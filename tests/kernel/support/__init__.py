# SPDX-License-Identifier: GPL-2.0
"""What the kernel tests share: programs, networks, the kernel's log and what is left in it."""
