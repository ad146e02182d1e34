# SPDX-License-Identifier: GPL-2.0
"""One version and one list of requirements, in every file that states them."""

from __future__ import annotations

import re

import pytest

from installer import __main__ as command
from installer import tree
from ipttctl.paths import VERSION
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
    for package in (*command.NEEDED.values(), "libbpf1", "libpcap0.8"):
        assert re.search(rf"^ +{re.escape(package)}\b", control, re.MULTILINE), package
        assert re.search(rf"^{re.escape(package)} ", packages, re.MULTILINE), package


def test_tools_that_compile_programs_are_there_to_build_the_package() -> None:
    control = (ROOT / "debian" / "control").read_text()
    packages = (ROOT / "apt-packages.txt").read_text()
    [needed] = re.findall(r"^Build-Depends: (.*)", control, re.MULTILINE)
    for package in ("clang", "llvm", "libbpf-dev"):
        assert package in needed.split(", ")
        assert re.search(rf"^{package} ", packages, re.MULTILINE), package
    assert re.search(r"^Recommends: .*\bpython3-bpfcc\b", control, re.MULTILINE)


def test_every_requirement_is_bundled_or_the_systems() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    # those of extras are of whoever installs them
    [always] = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    required = re.findall(r'^    "(\w+)>=', always, re.MULTILINE)
    systems = {name.lower() for name in command.NEEDED} | {"pyyaml"}
    assert required
    assert not {name.lower() for name in required} - systems - set(tree.BUNDLED)


def test_the_wheel_does_not_take_what_requirements_keep_out() -> None:
    pinned = (ROOT / "requirements.txt").read_text()
    kept_out = re.findall(r"^(\w+)==\S+ # ([\d.]+) ", pinned, re.MULTILINE)
    assert kept_out
    text = (ROOT / "pyproject.toml").read_text()
    for name, version in kept_out:
        assert re.search(rf'"{name}>=[\d.]+,<{re.escape(version)}"', text), (name, version)


@pytest.mark.parametrize(
    ("release", "built"),
    [
        ("5.10.0-30-amd64", False),
        ("6.0.0-1-amd64", False),
        ("6.1.0-47-amd64", True),
        ("6.12.117+deb12-rt-amd64", True),
        ("7.3.4+deb13-amd64", True),
    ],
)
def test_dkms_builds_for_the_kernels_that_are_supported(release: str, built: bool) -> None:
    text = (ROOT / "kmod_netlink" / "dkms.conf").read_text()
    pattern = re.search(r'^BUILD_EXCLUSIVE_KERNEL="(.*)"$', text, re.MULTILINE)
    assert pattern is not None
    assert (re.match(pattern.group(1), release) is not None) is built
