# SPDX-License-Identifier: GPL-2.0
"""Stories: all that happened to one packet, from where it entered to where it ended."""
