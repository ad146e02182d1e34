# SPDX-License-Identifier: GPL-2.0
"""The installer: the wheel, `make install`, and the content of the Debian package.

``python -m installer`` is the command line, which the Makefile and debian/rules use.
"""
