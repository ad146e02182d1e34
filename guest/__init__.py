# SPDX-License-Identifier: GPL-2.0
"""Run commands in QEMU guests that boot stock kernels on the host's root file system.

``python -m guest`` is the command line. Programs use :func:`guest.runner.run`.
"""
