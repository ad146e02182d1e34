# SPDX-License-Identifier: GPL-2.0
"""The Debian package on a machine that installs it, then boots another kernel.

Two guests are one machine: they share a disk, which holds what differs from the host's root file
system (``machine``). ``python -m tests.install`` boots them one after the other.
"""
