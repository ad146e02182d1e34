# SPDX-License-Identifier: GPL-2.0
"""The spec, checked with the kernel's own reader of specs and its schema."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError  # Debian's is without

from ipttproto import Command
from ipttproto.operations import OPERATIONS
from ipttproto.ynl import spec
from tests.ynl import SPEC, Ynl, ynl

pytestmark = pytest.mark.filterwarnings("ignore:The metaschema specified")  # the kernel's words


@pytest.fixture(scope="module")
def tool() -> Ynl:
    return ynl()


@pytest.fixture(scope="module")
def reader(tool: Ynl) -> Any:
    """The module nlspec of the kernel's client."""
    path = tool.cli.parent / "lib" / "nlspec.py"
    found = importlib.util.spec_from_file_location("nlspec", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_kernels_client_reads_it(reader: Any, tool: Ynl) -> None:
    family = reader.SpecFamily(str(SPEC), str(tool.schema))
    sent = {operation.command for operation in OPERATIONS if operation.group is None}
    assert {operation.value for operation in family.ops.values()} == sent
    assert {message.value for message in family.msgs.values()} == set(Command)


def test_every_member_of_a_struct_is_of_a_type_that_it_decodes(reader: Any, tool: Ynl) -> None:
    """The client's schema allows strings there, but the client fails on them (_decode_struct)."""
    family = reader.SpecFamily(str(SPEC), str(tool.schema))
    structs = [one for one in family.consts.values() if isinstance(one, reader.SpecStruct)]
    types = {member.type for struct in structs for member in struct}
    assert types <= {"binary", "u8", "u16", "u32", "u64", "s32", "s64"}


def test_the_schema_is_looked_at(reader: Any, tool: Ynl, tmp_path: Path) -> None:
    wrong = spec()
    wrong["operations"]["list"][0]["flags"] = ["root-only"]
    path = tmp_path / "wrong.yaml"
    path.write_text(f"# SPDX-License-Identifier: GPL-2.0\n{yaml.safe_dump(wrong)}")
    with pytest.raises(ValidationError, match="root-only"):
        reader.SpecFamily(str(path), str(tool.schema))
