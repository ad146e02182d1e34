# SPDX-License-Identifier: GPL-2.0
"""The kernel's own netlink client (tools/net/ynl), from Debian's linux-source package.

It knows no family: a YAML spec describes the messages, and a schema describes specs. No package
of Debian 12 contains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.linux_source import linux_files

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "proto" / "ipttrace.yaml"

_CLI = "tools/net/ynl/cli.py"
_SCHEMA = "Documentation/netlink/genetlink-legacy.yaml"
_FILES = (
    _CLI,
    "tools/net/ynl/lib/__init__.py",
    "tools/net/ynl/lib/nlspec.py",
    "tools/net/ynl/lib/ynl.py",
    _SCHEMA,
)


@dataclass(frozen=True)
class Ynl:
    """The paths of the client and of the schema for the level of the spec."""

    cli: Path
    schema: Path


def ynl() -> Ynl:
    """The client, extracted from the source archive once per version, which takes half a minute.

    Raises:
        KernelMissingError: the source package is not installed.
    """
    directory = linux_files(ROOT / ".build" / "ynl", _FILES)
    return Ynl(directory / _CLI, directory / _SCHEMA)
