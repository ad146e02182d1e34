# SPDX-License-Identifier: GPL-2.0
"""Network devices by their names."""

from __future__ import annotations

import pytest

from ipttctl.errors import UsageError
from ipttctl.system.devices import device_index


def test_a_name_has_an_index() -> None:
    assert device_index("lo") == 1


@pytest.mark.parametrize("name", ["lo" + "x" * 14, "x" * 300, "café-café-café"])
def test_no_device_has_a_name_so_long(name: str) -> None:
    """The kernel would use the first 15 bytes of the name, which can name another device."""
    with pytest.raises(UsageError, match="is no name of a device; the longest has 15 bytes"):
        device_index(name)


def test_an_unknown_name_of_15_bytes() -> None:
    with pytest.raises(UsageError, match=r"there is no device 'x{15}'"):
        device_index("x" * 15)
