# SPDX-License-Identifier: GPL-2.0
"""Static checks that no tool does alone: the kernel's own style, and reasons for exceptions."""
