# SPDX-License-Identifier: GPL-2.0
"""The differential test of walks: random rulesets and packets, without links and with them."""
