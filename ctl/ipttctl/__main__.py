# SPDX-License-Identifier: GPL-2.0
"""``python -m ipttctl``."""

from ipttctl.cli import main

main()
