# SPDX-License-Identifier: GPL-2.0
"""Programs for links: their sources, maps and payloads."""
