# SPDX-License-Identifier: GPL-2.0
"""The machine around us: namespaces, devices, processes, files and descriptors."""
