# SPDX-License-Identifier: GPL-2.0
"""Coverage of the module and of the Python packages by the tests."""
