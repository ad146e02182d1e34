# SPDX-License-Identifier: GPL-2.0
"""Rulesets, their generations, and the text of each rule at the moment a packet passed."""
