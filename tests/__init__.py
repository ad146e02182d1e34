# SPDX-License-Identifier: GPL-2.0
"""Tests, and the tools that prepare, measure and check them."""
