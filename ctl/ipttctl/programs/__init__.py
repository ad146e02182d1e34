# SPDX-License-Identifier: GPL-2.0
"""Programs for links: where they come from, their maps, their payloads."""
