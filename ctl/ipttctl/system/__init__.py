# SPDX-License-Identifier: GPL-2.0
"""The system around us: namespaces, devices, processes, files and descriptors."""
