# SPDX-License-Identifier: GPL-2.0
"""Rulesets: the programs that their rules belong to."""
