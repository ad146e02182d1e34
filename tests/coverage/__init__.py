# SPDX-License-Identifier: GPL-2.0
"""Which lines of the module and of the Python packages the tests run."""
