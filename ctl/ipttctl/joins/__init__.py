# SPDX-License-Identifier: GPL-2.0
"""Stories of several hosts, joined where a packet went from one host to another."""
