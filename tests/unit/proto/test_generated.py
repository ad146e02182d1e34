# SPDX-License-Identifier: GPL-2.0
"""Generated files: their freshness, a C compiler's view of them, and the contents of the spec."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ipttproto import Command, Slot, family, fingerprint
from ipttproto.enumerations import DEFINED
from ipttproto.family import RECORDS, Top
from ipttproto.generate import generated, main, stale
from ipttproto.layout import fields
from ipttproto.operations import OPERATIONS

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "kmod_netlink"
_CFLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-Wpadded", "-Werror")


def test_generated_files_are_up_to_date() -> None:
    assert stale(ROOT) == [], "run `make generate`"


def test_stale_files_are_found(tmp_path: Path) -> None:
    assert stale(tmp_path) == list(generated())
    for path, text in generated().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert stale(tmp_path) == []
    victim = tmp_path / "proto" / "ipttrace.yaml"
    victim.write_text(victim.read_text() + "\n")
    assert stale(tmp_path) == ["proto/ipttrace.yaml"]


def test_generating_writes_what_is_stale_and_checking_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def generate(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["generate", *arguments, str(tmp_path)])
        return main(), capsys.readouterr().out

    for path in generated():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    assert generate("--check") == (1, "".join(f"stale: {path}\n" for path in generated()))
    assert not any((tmp_path / path).exists() for path in generated())
    assert generate() == (0, "".join(f"generated: {path}\n" for path in generated()))
    assert generate("--check") == (0, "")
    (tmp_path / "proto" / "ipttrace.yaml").write_text("")
    assert generate() == (0, "generated: proto/ipttrace.yaml\n")
    assert stale(tmp_path) == []


@pytest.fixture
def gcc() -> str:
    path = shutil.which("gcc")
    if path is None:
        pytest.fail("this test needs gcc: apt install gcc libc6-dev")
    return path


def compiled(gcc: str, directory: Path, source: str) -> subprocess.CompletedProcess[str]:
    program = directory / "program"
    (directory / "program.c").write_text(source)
    result = subprocess.run(
        [gcc, *_CFLAGS, f"-I{MODULE}", "-o", str(program), str(directory / "program.c")],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        return result
    return subprocess.run([str(program)], capture_output=True, text=True, check=True)


def test_compiler_lays_the_records_out_as_we_do(gcc: str, tmp_path: Path) -> None:
    lines, expected = [], []
    for name, (record, _) in RECORDS.items():
        struct = f"struct ipttrace_{name}"
        for field in fields(record):
            lines.append(
                f'printf("{name}.{field.name} %zu %zu\\n", offsetof({struct}, {field.name}), '
                f"sizeof((({struct} *)0)->{field.name}));"
            )
            expected.append(f"{name}.{field.name} {field.offset} {field.size}")
        lines.append(f'printf("{name} %zu\\n", sizeof({struct}));')
        expected.append(f"{name} {record.sizeof()}")
    source = '#include <stdio.h>\n#include "layout_check.h"\nint main(void) {\n'
    result = compiled(gcc, tmp_path, source + "\n".join(lines) + "\nreturn 0;\n}\n")
    assert result.stdout.splitlines() == expected, result.stderr


def test_layout_check_can_fail(gcc: str, tmp_path: Path) -> None:
    text = (MODULE / "ipttrace_netlink.h").read_text()
    swapped = text.replace("__u16 sport;", "__u32 sport;")
    assert swapped != text
    (tmp_path / "ipttrace_netlink.h").write_text(swapped)
    shutil.copy(MODULE / "layout_check.h", tmp_path)
    source = f'#include "{tmp_path}/layout_check.h"\nint main(void) {{ return 0; }}\n'
    result = compiled(gcc, tmp_path, source)
    assert result.returncode != 0
    assert "event.dport" in result.stderr


def test_c_names_have_our_values(gcc: str, tmp_path: Path) -> None:
    names = {
        "IPTTRACE_FINGERPRINT": fingerprint.FINGERPRINT,
        "IPTTRACE_FAMILY_VERSION": family.VERSION,
        "IPTTRACE_CMD_SWAP": Command.SWAP,
        "IPTTRACE_SLOT_EXIT": Slot.EXIT,
        "IPTTRACE_A_MAX": max(Top.by_number),
        "IPTTRACE_A_EXPECT_PROGRAM": Top.by_name["expect-program"].number,
        "IPTTRACE_A_PROGRAM_FD": family.Program.by_name["fd"].number,
        **{f"IPTTRACE_{name}": value for name, (value, _) in family.LIMITS.items()},
    }
    prints = "\n".join(f'printf("{name} %lld\\n", (long long){name});' for name in names)
    source = '#include <stdio.h>\n#include "ipttrace_netlink.h"\nint main(void) {\n'
    result = compiled(gcc, tmp_path, source + prints + "\nreturn 0;\n}\n")
    expected = [f"{name} {int(value)}" for name, value in names.items()]
    assert result.stdout.splitlines() == expected, result.stderr


def test_the_module_has_every_request_for_the_administrator_alone() -> None:
    text = (MODULE / "netlink_gen.c").read_text()
    _, table = text.split("const struct genl_ops ipttrace_nl_operations")
    requests = [operation for operation in OPERATIONS if operation.group is None]
    assert re.findall(r"\.cmd = IPTTRACE_CMD_(\w+)", table) == [op.command.name for op in requests]
    assert table.count(".flags = GENL_ADMIN_PERM,") == len(requests)
    names = {operation.command.name.lower(): operation.dump for operation in requests}
    assert re.findall(r"\.doit = ipttrace_nl_(\w+)_doit", table) == list(names)
    assert re.findall(r"\.policy = ipttrace_(\w+)_policy", table) == list(names)
    dumps = [name for name, dump in names.items() if dump]
    # invalid attributes of a dump are refused where it starts
    assert re.findall(r"\.start = ipttrace_nl_(\w+)_start", table) == dumps
    assert re.findall(r"\.dumpit = ipttrace_nl_(\w+)_dumpit", table) == dumps


def test_spec_has_every_operation_and_attribute() -> None:
    spec = yaml.safe_load((ROOT / "proto" / "ipttrace.yaml").read_text())
    operations = {entry["value"]: entry["name"] for entry in spec["operations"]["list"]}
    assert operations == {c.value: c.name.lower().replace("_", "-") for c in Command}
    [top] = [s for s in spec["attribute-sets"] if s["name"] == Top.name]
    assert {a["name"]: a["value"] for a in top["attributes"]} == {
        a.name: a.number for a in Top.attributes
    }
    structs = {d["name"]: d for d in spec["definitions"] if d["type"] == "struct"}
    assert {n: len(d["members"]) for n, d in structs.items()} == {
        name: len(fields(record)) for name, (record, _) in RECORDS.items()
    }


def test_every_attribute_of_an_operation_exists() -> None:
    assert {operation.command for operation in OPERATIONS} == set(Command)
    for operation in OPERATIONS:
        assert {*operation.request, *operation.reply} <= Top.by_name.keys()


def test_everything_is_documented() -> None:
    for enumeration in DEFINED:
        assert enumeration.__doc__
        assert all(member.doc for member in enumeration)
    for space in family.ATTRIBUTE_SETS:
        assert all(attribute.doc for attribute in space.attributes)
        assert all(field.doc for record, _ in RECORDS.values() for field in fields(record))


def test_fingerprint_changes_with_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(fingerprint._canonical())
    monkeypatch.setitem(family.LIMITS, "MAX_LINKS", (129, "links at one hook"))
    after = list(fingerprint._canonical())
    assert [a for a, b in zip(before, after, strict=True) if a != b] == ["limit MAX_LINKS 128"]
