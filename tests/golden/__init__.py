# SPDX-License-Identifier: GPL-2.0
"""Requests, replies, notifications and events of each version of the protocol, byte by byte.

A file for each version, ``MAJOR.MINOR.yaml``, is recorded once by ``make golden``, which has a
guest with that version's module play a scenario (``stage.py``). Once the version is released it
never changes.

Modules of later minor versions have to take its requests as that one did
(``tests/kernel/test_golden.py``), and controllers have to send them and to read its answers
(``tests/unit/proto/test_golden.py``).
"""
