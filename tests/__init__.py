# SPDX-License-Identifier: GPL-2.0
"""Tests, and what runs them."""
