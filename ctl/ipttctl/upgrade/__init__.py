# SPDX-License-Identifier: GPL-2.0
"""Replace the module while links exist: their journal, the steps, and what they ended with."""
