# SPDX-License-Identifier: GPL-2.0
"""Kernels of other suites, and their place in a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from guest import __main__ as command
from guest import kernel_list, suites
from guest.errors import KernelMissingError
from guest.job import Workspace
from guest.kernel_list import ListedKernel
from guest.kernels import Kernel
from guest.suites import Suite


def test_the_kernel_of_a_suite_is_the_newest_in_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suites, "DIRECTORY", tmp_path)
    suite = Suite("trixie-backports", "linux-image-amd64")
    with pytest.raises(KernelMissingError, match=r"kernel 7\.x of suite trixie-backports is not"):
        suite.kernel("7.x")
    for release in ("7.3.4+deb13-amd64", "7.3.10+deb13-amd64"):
        (suite.root / "boot").mkdir(parents=True, exist_ok=True)
        (suite.root / "boot" / f"vmlinuz-{release}").touch()
        headers = suite.root / "lib" / "modules" / release / "build"
        headers.mkdir(parents=True)
        (headers / "Makefile").touch()
        (headers.parent / "kernel").mkdir()
    with pytest.raises(KernelMissingError, match="run: make suites"):
        suite.kernel("7.x")  # a half-made root
    (suite.root / ".complete").touch()
    assert suite.kernel("7.x").release == "7.3.10+deb13-amd64"


LISTED = ListedKernel(
    "7.x",
    "why",
    {"test": (2,), "test-all": (2,)},
    package="linux-image-amd64",
    suite="trixie-backports",
    passed="7.3.4",
)


@pytest.mark.parametrize(
    ("release", "newer"),
    [
        ("7.3.4+deb13-amd64", False),
        ("7.3.4-1-amd64", False),
        ("6.18.15+deb13-amd64", False),
        ("7.3.10+deb13-amd64", True),
        ("7.10.1+deb13-amd64", True),
    ],
)
def test_newer_than_what_passed(release: str, newer: bool) -> None:
    assert LISTED.is_newer(Kernel("7.x", release, Path("image"), Path("headers"))) is newer


def test_a_suite_says_which_version_passed() -> None:
    with pytest.raises(ValueError, match="say which version passed"):
        replace(LISTED, passed="")


class Listing:
    """The command line's selection for a target, with this list of kernels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, build: Path) -> None:
        monkeypatch.setattr(kernel_list, "of_target", lambda _: [LISTED])
        self.patch = monkeypatch
        self.workspace = Workspace(build, build, build)

    def found(self, release: str) -> Kernel:
        """Pretend that the kernel exists, in this release."""
        kernel = Kernel("7.x", release, Path("image"), Path("headers"))
        self.patch.setattr(ListedKernel, "find", lambda _: kernel)
        return kernel

    def select(self, target: str) -> command._Selection:
        """The selection of a run for the target."""
        words = ["run", "--accel", "tcg", "--target", target, "true"]
        return command._selection(command._parser().parse_args(words), self.workspace)


@pytest.fixture(name="listing")
def _listing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Listing:
    return Listing(monkeypatch, tmp_path)


@pytest.mark.parametrize("target", ["test", "test-all"])
def test_a_suite_that_cannot_be_had_is_left_out_and_said(listing: Listing, target: str) -> None:
    def missing(_: ListedKernel) -> Kernel:
        raise KernelMissingError("the archive does not answer")

    listing.patch.setattr(ListedKernel, "find", missing)
    selection = listing.select(target)
    assert selection.machines == []
    assert selection.decisive == []
    assert selection.left_out == ("LEFT OUT: kernel 7.x: the archive does not answer",)


def test_a_newer_kernel_is_tried_and_decides_test_all_only(listing: Listing) -> None:
    kernel = listing.found("7.4.1+deb13-amd64")
    module = kernel.module(listing.workspace.build_dir)
    module.parent.mkdir(parents=True)
    module.touch()
    assert listing.select("test").uncounted == {"7.x"}
    assert listing.select("test").decisive == []
    assert listing.select("test-all").decisive == ["7.x"]
    assert listing.select("test-all").uncounted == set()
    module.unlink()
    selection = listing.select("test")
    assert selection.machines == []
    assert (
        "does not build for 7.4.1+deb13-amd64, which is newer than 7.3.4" in selection.left_out[0]
    )
    assert len(listing.select("test-all").machines) == 1


def test_a_kernel_that_passed_decides(listing: Listing) -> None:
    listing.found("7.3.4+deb13-amd64")
    selection = listing.select("test")
    assert [str(machine) for machine in selection.machines] == ["7.x/2"]
    assert not selection.uncounted
