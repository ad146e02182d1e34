# SPDX-License-Identifier: GPL-2.0
"""Paths of files, for the tests of the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
