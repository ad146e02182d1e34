# SPDX-License-Identifier: GPL-2.0
"""The packages that a test on Debian 13 installs there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.install.debian_13 import needed_packages

CONTROL = Path(__file__).resolve().parents[3] / "debian" / "control"


def test_what_the_package_needs_is_installed() -> None:
    found = needed_packages()
    build, _, rest = CONTROL.read_text().partition("Build-Depends:")[2].partition("\n")
    asked = {item.split()[0] for item in build.split(",")} - {"debhelper-compat"}
    assert {"clang", "libbpf-dev", "llvm"} <= asked <= set(found)
    assert "debhelper" in found
    depends = rest.partition("\nDepends:")[2].partition("\nRecommends:")[0]
    assert set(re.findall(r"^ +([a-z][\w.-]*)", depends, re.MULTILINE)) <= set(found)
    assert {"python3-construct", "libbpf1", "gcc", "kmod"} <= set(found)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in found)
    assert len(set(found)) == len(found)
