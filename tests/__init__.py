# SPDX-License-Identifier: GPL-2.0
"""Tests, and the tools that make, measure and judge them."""
