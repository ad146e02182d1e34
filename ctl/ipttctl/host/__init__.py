# SPDX-License-Identifier: GPL-2.0
"""The host: the module built and loaded, and what is missing for it."""
