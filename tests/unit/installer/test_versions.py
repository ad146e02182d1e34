# SPDX-License-Identifier: GPL-2.0
"""One version, and one list of what is needed, in every file that says so."""

from __future__ import annotations

import re

from installer import __main__ as command
from installer import tree
from ipttctl.installed import VERSION
from tests.unit.installer.support import ROOT


def test_version() -> None:
    module = (ROOT / "kmod_netlink" / "netlink.h").read_text()
    assert f'#define IPTTRACE_VERSION "{VERSION}"' in module
    assert f'PACKAGE_VERSION="{VERSION}"' in (ROOT / "kmod_netlink" / "dkms.conf").read_text()
    assert (ROOT / "debian" / "changelog").read_text().startswith(f"ipttctl ({VERSION}) ")


def test_bundled() -> None:
    listed = re.findall(r"^([\w-]+) +# ", tree.REQUIREMENTS.read_text(), re.MULTILINE)
    assert tuple(sorted(listed)) == tree.BUNDLED


def test_what_is_not_bundled_is_a_dependency() -> None:
    control = (ROOT / "debian" / "control").read_text()
    packages = (ROOT / "apt-packages.txt").read_text()
    for package in (*command.NEEDED.values(), "python3-bpfcc", "libbpf1", "libpcap0.8"):
        assert re.search(rf"^ +{re.escape(package)}\b", control, re.MULTILINE), package
        assert re.search(rf"^{re.escape(package)} ", packages, re.MULTILINE), package


def test_every_requirement_is_bundled_or_the_systems() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    required = re.findall(r'^    "(\w+)>=', text, re.MULTILINE)
    systems = {name.lower() for name in command.NEEDED} | {"pyyaml"}
    assert required
    assert not {name.lower() for name in required} - systems - set(tree.BUNDLED)
