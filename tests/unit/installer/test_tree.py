# SPDX-License-Identifier: GPL-2.0
"""The installation: complete, runnable without the checkout, replaced and removed as a whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from installer import objects, tree, wheel
from ipttctl.bpf.collection import CollectionSpec
from ipttctl.paths import VERSION
from ipttctl.programs.trace import TraceOptions
from ipttproto import FINGERPRINT, family
from tests.unit.installer.support import ROOT


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def prefix(tmp_path: Path, built: Path) -> Path:
    """A prefix for the installation."""
    prefix = tmp_path / "usr"
    assert tree.install(tree.items(built, PurePosixPath(prefix), debian=False), prefix) > 100
    return prefix


def run(*command: str | Path) -> str:
    """Run an installed program, from a directory outside the project."""
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sources(directory: Path) -> dict[str, bytes]:
    """The files that are compiled on the host of the installation."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for part in ("bpf", "kmod_netlink")
        for path in (directory / part).rglob("*")
        if (path.suffix in {".c", ".h", ".S", ".conf"} or path.name in {"Kbuild", "Makefile"})
        and not any(path.match(pattern) for pattern in wheel.LEFT_BEHIND)
    }


def test_the_wheel_holds_every_source(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path)
    assert sources(tmp_path / "ipttctl" / "sources") == sources(ROOT)
    code = {path.relative_to(ROOT / "ctl") for path in (ROOT / "ctl").rglob("*.py")}
    assert not [path for path in code if not (tmp_path / path).is_file()]


def test_the_wheel_holds_the_programs_of_trace(built: Path, tmp_path: Path) -> None:
    """They are the same wherever it is built, and have the constants of the source."""
    name = f"ipttctl/objects/{os.uname().machine}/trace.o"
    with zipfile.ZipFile(built) as archive:
        archive.extract(name, tmp_path)
    spec = CollectionSpec.from_object(tmp_path / name)
    assert {"trace_entry", "trace_rule", "trace_exit"} <= set(spec.programs)
    spec.set_constants(TraceOptions(pid=5, netns=7).constants())
    again = tmp_path / "again"
    objects.build(ROOT, again)
    assert (again / "trace.o").read_bytes() == (tmp_path / name).read_bytes()


def test_without_clang_the_wheel_has_no_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with zipfile.ZipFile(wheel.build(tmp_path)) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".o")]
    assert capsys.readouterr().err == (
        "clang and llvm-strip not found: the first trace compiles its programs with bpfcc\n"
    )


def test_building_leaves_nothing_in_the_checkout(built: Path) -> None:
    del built
    assert not (ROOT / "build").exists()
    assert not list((ROOT / "ctl").glob("*.egg-info"))


def test_it_runs(prefix: Path) -> None:
    program = prefix / "sbin" / "ipttctl"
    protocol = f"{family.VERSION}.{family.MINOR}, build {FINGERPRINT:08x}"
    assert run(program, "--version") == f"ipttctl {VERSION}, protocol {protocol}\n"
    assert run(program, "trace", "--help").startswith("Usage: ipttctl trace")


def test_it_runs_its_own_code_and_finds_its_sources(prefix: Path) -> None:
    script = (
        "import ipttctl, ipttproto, typer, pyroute2, construct\n"
        "from ipttctl.host import module\n"
        "from ipttctl import Controller, EventBatch\n"
        "from ipttctl.paths import programs_directory\n"
        "for path in (ipttctl.__file__, ipttproto.__file__, typer.__file__, pyroute2.__file__,\n"
        "             module.source_directory(), programs_directory() / 'trace.c'): print(path)\n"
        "print(construct.__file__)\n"
    )
    *ours, system = run(prefix / "lib/ipttctl/bin/python3", "-I", "-c", script).splitlines()
    assert len(ours) == 6
    assert not [path for path in ours if not path.startswith(f"{prefix}/lib/ipttctl/")]
    assert Path(ours[-1]).is_file()
    assert system.startswith("/usr/lib/python3/")


def test_clients_in_other_languages_find_header_and_spec(prefix: Path) -> None:
    spec = (ROOT / "proto" / "ipttrace.yaml").read_bytes()
    assert (prefix / "share/ynl/specs/ipttrace.yaml").read_bytes() == spec
    options = run(prefix / "sbin" / "ipttctl", "cflags").split()
    included = [option for option in options if option.startswith("-I")]
    assert any(option.startswith(f"-I{prefix}") for option in included)
    assert not any(option.startswith(f"-I{ROOT}") for option in included)
    run("cc", "-Wall", "-Werror", "-fsyntax-only", *included, ROOT / "docs/examples/client.c")


def test_installing_again_changes_nothing(prefix: Path, built: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")}
    assert tree.install(tree.items(built, PurePosixPath(prefix), debian=False), prefix) == 0
    assert {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")} == before


def test_installing_again_repairs_and_drops_what_is_gone(prefix: Path, built: Path) -> None:
    (prefix / "sbin/ipttctl").write_text("broken")
    (prefix / "share/man/man8/ipttctl-gone.8").touch()
    (code,) = prefix.glob("lib/ipttctl/lib/python*/site-packages")
    (code / "ipttctl" / "gone").mkdir()
    (code / "ipttctl" / "gone" / "old.py").touch()
    cache = code / "ipttctl" / "__pycache__"
    cache.mkdir()
    for name in ("gone.cpython-311.pyc", "errors.cpython-311.pyc"):
        (cache / name).touch()
    assert tree.install(tree.items(built, PurePosixPath(prefix), debian=False), prefix) == 4
    assert os.access(prefix / "sbin/ipttctl", os.X_OK)
    assert not (code / "ipttctl" / "gone").exists()
    assert [path.name for path in cache.iterdir()] == ["errors.cpython-311.pyc"]


def test_uninstalling_removes_it_and_nothing_else(prefix: Path) -> None:
    others = [prefix / "share/man/man8/iptables.8", prefix / "lib/other", prefix / "sbin/iptables"]
    for other in others:
        other.touch()
    assert tree.uninstall(prefix) > 100
    assert {path for path in prefix.rglob("*") if not path.is_dir()} == set(others)
    assert tree.uninstall(prefix) == 0


def test_a_package_has_completion_of_zsh_where_debian_has_it(built: Path) -> None:
    wanted = tree.items(built, PurePosixPath("/usr"), debian=True)
    assert PurePosixPath("share/zsh/vendor-completions/_ipttctl") in wanted
    assert PurePosixPath("share/zsh/site-functions/_ipttctl") not in wanted
    program = wanted[PurePosixPath("sbin/ipttctl")]
    assert program.content.startswith(b"#!/usr/lib/ipttctl/bin/python3 -I\n")


@pytest.mark.parametrize("debian", [False, True])
def test_the_units_are_where_systemd_looks(built: Path, debian: bool) -> None:
    wanted = tree.items(built, PurePosixPath("/usr"), debian=debian)
    assert len(tree.UNITS) == 3
    for name in tree.UNITS:
        text = wanted[PurePosixPath("lib/systemd/system", name)].content.decode()
        assert "ExecStart=/usr/sbin/ipttctl " in text


def test_licences_of_what_is_bundled_come_with_it(prefix: Path) -> None:
    (code,) = prefix.glob("lib/ipttctl/lib/python*/site-packages")
    for name in tree.BUNDLED:
        (information,) = code.glob(f"{name.replace('-', '_')}-*.dist-info")
        assert [path for path in information.rglob("*") if "LICEN" in path.name.upper()], name
