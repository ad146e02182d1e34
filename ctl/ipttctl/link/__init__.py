# SPDX-License-Identifier: GPL-2.0
"""Links: the connection to the module, the verbs, the module's replies and its streams."""
