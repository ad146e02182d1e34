# SPDX-License-Identifier: GPL-2.0
"""Faults put into a copy of the module on purpose, to prove that the tests detect them."""
