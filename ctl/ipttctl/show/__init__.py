# SPDX-License-Identifier: GPL-2.0
"""Events and links as text, as JSON and as tables."""
