# SPDX-License-Identifier: GPL-2.0
"""Events of packets: records, and the names behind their numbers."""
