# SPDX-License-Identifier: GPL-2.0
"""The public face, the direction of imports, and what a start costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ipttctl

PACKAGE = Path(ipttctl.__file__).parent

#: a module of these imports, of these, only those of lines above its own
LAYERS = (
    {"errors", "installed", "escape", "protocols"},
    {"netns"},
    {"namespace_names"},
    {"wire", "hooks", "devices"},
    {"objects", "event_filter"},
    {"records", "losses", "measurement"},
    {"describe", "payloads"},
    {"packet_text"},
    {"streams", "packets"},
    {"controller"},
    {"render_text", "render_json", "module"},
    {"event_text"},
    {"host"},
    {"doctor"},
    {"cli"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "ipttctl":
            found |= {f"ipttctl.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.split(".")[1] for name in found if name.startswith("ipttctl.")}


def test_every_public_name_is_there() -> None:
    assert sorted(ipttctl.__all__) == ipttctl.__all__
    for name in ipttctl.__all__:
        assert getattr(ipttctl, name).__name__ == name
        assert name in dir(ipttctl)


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ipttctl.nonsense  # noqa: B018 - looking it up is the test


def test_imports_have_no_cycle() -> None:
    graph = {path.stem: imported(path) for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert len(list(TopologicalSorter(graph).static_order())) > len(RANK)


@pytest.mark.parametrize("name", sorted(RANK.keys() - {"cli"}))
def test_imports_go_downwards(name: str) -> None:
    found = imported(PACKAGE / f"{name}.py")
    assert not {other for other in found & RANK.keys() if RANK[other] >= RANK[name]}


def test_rendering_does_not_talk_to_the_module() -> None:
    for name in ("describe", "packet_text", "render_text", "event_text", "render_json"):
        assert not imported(PACKAGE / f"{name}.py") & {"wire", "streams", "controller"}


@pytest.mark.parametrize("arguments", [["--help"], ["links"], ["trace", "--help"]])
def test_start_does_not_import_what_it_does_not_need(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom ipttctl.cli import run\n"
        f"try: run({arguments!r})\n"
        "finally: print(sorted({'numpy', 'bcc', 'rich', 'yaml', 'pydantic'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert result.stdout.splitlines()[-1] == "[]"
