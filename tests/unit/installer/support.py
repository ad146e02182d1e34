# SPDX-License-Identifier: GPL-2.0
"""Where things are, for the tests of what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
