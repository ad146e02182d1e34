# SPDX-License-Identifier: GPL-2.0
"""The public API, the direction of imports, and the cost of a start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import ipttctl
import ipttproto

PACKAGE = Path(ipttctl.__file__).parent
STUB = PACKAGE / "__init__.pyi"

#: a file of these packages and modules imports from lines above its own, and from its own package
RANKS = (
    {"errors"},
    {"bpf", "durations", "escape", "families", "numbers", "options", "paths", "yaml_text"},
    {"system"},
    {"rules", "verify"},
    {"events"},
    {"hooks"},
    {"link"},
    {"host", "programs"},
    {"frames", "stories"},
    {"joins"},
    {"show"},
    {"recordings"},
    {"state"},
    {"upgrade"},
    {"fleet"},
    {"cli"},
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}

#: the public names and the entry point, which are above everything
ABOVE = {"__init__", "__main__"}


def module_of(path: Path) -> str:
    """The name of a file below the package: ``link.model``, ``bpf``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            of_package = {name for name in submodules if name.removeprefix("ipttctl.") in FILES}
            found |= of_package or {node.module}
    return {name.removeprefix("ipttctl.") for name in found if name.startswith("ipttctl.")}


def test_every_public_name_is_there() -> None:
    names = getattr(ipttctl, "__all__")  # noqa: B009 - the stub has none
    assert sorted(names) == names
    assert len(names) > 50
    for module, name in re.findall(
        r"^from (\S+) import (\w+) as \2$", STUB.read_text(), re.MULTILINE
    ):
        assert getattr(ipttctl, name) is getattr(import_module(module), name)
        assert name in dir(ipttctl)


def test_the_command_has_its_first_line_before_the_imports() -> None:
    """There it says what Ctrl-C does."""
    script = (
        "import sys\nfrom signal import getsignal\nbefore = set(sys.modules)\n"
        f"sys.path.insert(0, {str(STUB.parents[1])!r})\n"
        "import ipttctl.__main__\nprint(*sorted(set(sys.modules) - before))"
    )
    told = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout == "__future__ ipttctl ipttctl.__main__\n"


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(ipttctl, "nonsense")  # noqa: B009 - it has none


def test_every_file_has_a_rank() -> None:
    assert {name.split(".")[0] for name in FILES} == RANK.keys() | ABOVE
    assert len(FILES) > 50


@pytest.mark.parametrize("name", sorted(FILES.keys() - ABOVE))
def test_imports_go_downwards(name: str) -> None:
    own = name.split(".", maxsplit=1)[0]
    upwards = {
        other
        for other in imported(FILES[name])
        if (package := other.split(".")[0]) != own and RANK[package] >= RANK[own]
    }
    assert not upwards


def test_imports_have_no_cycle() -> None:
    graph = {name: imported(path) - {name} for name, path in FILES.items() if name not in ABOVE}
    assert set(TopologicalSorter(graph).static_order()) == graph.keys()


def test_the_bpf_library_stands_alone() -> None:
    """It imports nothing of ours but the errors, and so could be a project of its own."""
    files = {name: path for name, path in FILES.items() if name.split(".")[0] == "bpf"}
    assert len(files) > 20
    for name, path in files.items():
        outside = {other for other in imported(path) if other.split(".")[0] != "bpf"}
        assert outside <= {"errors"}, name
        assert "ipttproto" not in path.read_text(), name


def test_showing_does_not_talk_to_the_module() -> None:
    for name, path in FILES.items():
        if name.split(".")[0] == "show":
            assert not imported(path) & {"link.wire", "link.streams", "link.controller"}


#: packages that are slow to import, or that the project does not need, and parts of ours that take
#: time together
DEAR = {
    "asyncio",
    "bcc",
    "concurrent.futures",
    "numpy",
    "pydantic",
    "pyroute2.iproute",
    "pyroute2.ndb",
    "rich",
    "yaml",
    "ipttctl.bpf.specs",
    "ipttctl.host",
    "ipttctl.link",
    "ipttctl.rules",
    "ipttctl.state",
    "ipttctl.verify",
}
COMPILING = "ipttctl.bpf.specs"
LINK, HOST, RULES, STATE = (f"ipttctl.{name}" for name in ("link", "host", "rules", "state"))


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (["--version"], set()),
        (["nonsense"], set()),
        (["--help"], set()),
        (["links"], {LINK}),
        (["detach", "3"], {LINK}),
        (["release", "3"], {LINK}),
        (["rename", "3", "web"], {LINK}),
        (["stats"], {LINK}),
        (["events"], {LINK, RULES}),
        (["attach"], {COMPILING, LINK, HOST}),
        (["trace"], {COMPILING, LINK, HOST, RULES}),
        (["trace", "--help"], {COMPILING, LINK, HOST, RULES}),
        (["diff", "/nowhere"], {COMPILING, LINK, HOST, STATE, "yaml"}),
        (["cflags"], {LINK}),
        ([], {LINK, HOST}),
    ],
)
def test_a_command_loads_what_it_needs(arguments: list[str], loaded: set[str]) -> None:
    """There is no module to talk to: each command ends when it has looked for one."""
    script = (
        "import sys\nfrom ipttctl.cli import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try: main()\n"
        f"finally: print(*sorted({DEAR!r} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert result.returncode in {0, 1, 2, 3}, result.stderr
    assert set(result.stdout.splitlines()[-1].split()) == loaded


def test_events_are_decoded_without_numpy() -> None:
    script = (
        "import sys\nfrom ipttctl.events.records import decode_events\n"
        "from ipttproto import parse_batch\n"
        "from tests.unit.ctl.support import batch_payload, event\n"
        "[record] = decode_events(parse_batch(batch_payload([event(rulenum=7)])))\n"
        "print(record.rulenum, 'numpy' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert result.stdout == "7 False\n"


def test_others_get_all_of_pyroute2() -> None:
    script = "import ipttctl.link.wire, pyroute2\nprint(pyroute2.IPRoute.__name__)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "IPRoute\n"


#: the enumeration of the protocol, from which the C header has its name, and the class of its kinds
TWICE = {"Hook"}


def test_a_name_means_one_class() -> None:
    homes: dict[str, list[str]] = {}
    for package in (PACKAGE, Path(ipttproto.__file__).parent):
        for path in package.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes.setdefault(node.name, []).append(path.name)
    assert {name for name, files in homes.items() if len(files) > 1} == TWICE
