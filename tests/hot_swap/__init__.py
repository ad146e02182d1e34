# SPDX-License-Identifier: GPL-2.0
"""The same change of programs, made in several ways under load, with every packet accounted for."""
