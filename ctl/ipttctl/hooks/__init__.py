# SPDX-License-Identifier: GPL-2.0
"""Places where links are: a file for each kind of hook."""
