# SPDX-License-Identifier: GPL-2.0
"""The demonstration: ``make demo``."""
