# SPDX-License-Identifier: GPL-2.0
"""Puts ipttctl on a host: the wheel, `make install`, and what the Debian package holds.

``python -m installer`` is the command line; the Makefile and debian/rules are who uses it.
"""
