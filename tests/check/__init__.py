# SPDX-License-Identifier: GPL-2.0
"""Static checks beyond the usual tools: the kernel's own style, and reasons for exceptions."""
