# SPDX-License-Identifier: GPL-2.0
"""Programs that measure at sizes for which the tests have no time."""
