# SPDX-License-Identifier: GPL-2.0
"""The planted faults apply to the current module; proving their detection takes a debug kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted.__main__ import plant
from tests.planted.faults import FAULTS, PlantedFault


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_faults_fit_the_module(tmp_path: Path, fault: PlantedFault) -> None:
    plant(fault, tmp_path / "source")
