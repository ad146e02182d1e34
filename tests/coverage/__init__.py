# SPDX-License-Identifier: GPL-2.0
"""Lines of the module and of the Python packages that the tests run."""
