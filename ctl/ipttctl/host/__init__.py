# SPDX-License-Identifier: GPL-2.0
"""The host: the module's build, load and unload, and checks of what they need."""
