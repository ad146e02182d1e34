# SPDX-License-Identifier: GPL-2.0
"""The same change of programs made in several ways under load, each packet accounted for."""
