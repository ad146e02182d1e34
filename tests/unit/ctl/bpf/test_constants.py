# SPDX-License-Identifier: GPL-2.0
"""Constants that people write: their types, the values that fit, and the sentences if none do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.btf import Int
from ipttctl.bpf.constants import constant_type, identity, set_constants
from ipttctl.bpf.specs import CollectionSpec
from ipttctl.errors import ProgramError, UsageError
from tests.unit.ctl.bpf.support import example_spec

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum colour { RED = 1, BLUE = 7 };
struct net4 { unsigned prefixlen; __be32 address; };

const volatile _Bool on = 1;
const volatile signed char tiny;
const volatile short small;
const volatile unsigned int plain = 3;
const volatile long long wide;
const volatile __be16 port;
const volatile enum colour paint = RED;
const volatile char name[8] = "eth0";
const volatile unsigned char mac[6];
const volatile unsigned int list[2];
const volatile struct net4 network;
const volatile double ratio;
const volatile void *where;
int level = 4;
int zero;

SEC("socket")
int use(struct __sk_buff *skb)
{
	return on + tiny + small + plain + wide + port + paint + name[0] + mac[0] + list[1] +
		network.address + *(const volatile char *)&ratio + !!where + level++ + zero++;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("constants")
    source, target = place / "all.c", place / "all.o"
    source.write_text(SOURCE)
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", include, "-c", str(source), "-o"]
    subprocess.run([*command, str(target)], check=True)
    return target


@pytest.fixture
def spec(file: Path) -> CollectionSpec:
    return CollectionSpec.from_object(file)


def written(spec: CollectionSpec, values: dict[str, Any]) -> dict[str, bytes]:
    """The bytes that are written for each constant."""
    set_constants(spec, values)
    assert spec.elf
    plan = spec.elf.plan({"use": 1}, spec.maps, spec.values, {})
    places = {(c.map, c.place.bits // 8): name for name, c in spec.elf.content.constants.items()}
    return {
        places[map_name, offset]: data
        for map_name, content in plan.constants.items()
        for offset, data in content.items()
    }


@pytest.mark.parametrize(
    ("name", "value", "data"),
    [
        ("on", "true", b"\1"),
        ("on", "False", b"\0"),
        ("on", "1", b"\1"),
        ("on", False, b"\0"),
        ("tiny", "-128", b"\x80"),
        ("small", "-2", b"\xfe\xff"),
        ("plain", "0xffffffff", b"\xff\xff\xff\xff"),
        ("plain", "10.0.0.1", b"\x0a\0\0\1"),
        ("wide", str(-(1 << 63)), bytes(7) + b"\x80"),
        ("port", "443", b"\1\xbb"),
        ("paint", "BLUE", b"\7\0\0\0"),
        ("paint", "1", b"\1\0\0\0"),
        ("name", "lo", b"lo\0\0\0\0\0\0"),
        ("name", "", bytes(8)),
        ("mac", "0a:0b:0c:0d:0e:0f", b"\x0a\x0b\x0c\x0d\x0e\x0f"),
        ("list", "[1, 2]", b"\1\0\0\0\2\0\0\0"),
        ("list", [1, 2], b"\1\0\0\0\2\0\0\0"),
        ("network", '{"prefixlen": 8, "address": "10.0.0.0"}', b"\x08\0\0\0\x0a\0\0\0"),
        ("level", "-1", b"\xff\xff\xff\xff"),
        ("zero", "7", b"\7\0\0\0"),
    ],
)
def test_values_of_each_type(spec: CollectionSpec, name: str, value: Any, data: bytes) -> None:
    assert written(spec, {name: value}) == {name: data}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("on", "2", "constant on (_Bool): '2' is neither true nor false"),
        ("on", "maybe", "constant on (_Bool): 'maybe' is neither true nor false"),
        ("on", 1.0, "constant on (_Bool): 1.0 is neither true nor false"),
        ("tiny", "128", "constant tiny (signed char): 128 is not between -128 and 127"),
        ("small", "40000", "constant small (short): 40000 is not between -32768 and 32767"),
        ("plain", "-1", "constant plain (unsigned int): -1 is not between 0 and 4294967295"),
        ("plain", "1.5", "constant plain (unsigned int): '1.5' is no unsigned int; it takes a num"),
        ("plain", "", "constant plain (unsigned int): '' is no unsigned int; it takes a number"),
        ("plain", True, "constant plain (unsigned int): True is no unsigned int; it takes a num"),
        ("port", "65536", "constant port (__be16): 65536 is not between 0 and 65535"),
        ("paint", "GREEN", "constant paint (enum colour): 'GREEN' is no enum colour; there are: "),
        ("name", "longer than", "constant name (char[8]): 'longer than' is longer than 7 bytes, "),
        ("list", "[1]", "constant list (unsigned int[2]): unsigned int[2] takes 2 elements, not 1"),
        ("list", "[1", "constant list (unsigned int[2]): '[1' is not JSON: "),
        ("ratio", "1.5", "constant ratio (double) cannot be set; it takes an integer, text or"),
        ("where", "0", "constant where (pointer) cannot be set"),
    ],
)
def test_values_that_do_not_fit(spec: CollectionSpec, name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        set_constants(spec, {name: value})
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    assert spec.values == {}


def test_a_constant_that_is_not_there(spec: CollectionSpec) -> None:
    with pytest.raises(ProgramError) as refusal:
        set_constants(spec, {"limit": 1})
    told = str(refusal.value)
    assert told.startswith("the programs have no constant limit; there are: level (int), list (uns")
    assert "paint (enum colour), plain (unsigned int), port (__be16), ratio (double)" in told


# --- sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size", "signed"),
    [
        ("__u8", 1, False),
        ("u16", 2, False),
        ("__s32", 4, True),
        ("uint64_t", 8, False),
        ("int8_t", 1, True),
        ("char", 1, True),
        ("unsigned char", 1, False),
        ("short", 2, True),
        ("unsigned short int", 2, False),
        ("int", 4, True),
        ("unsigned", 4, False),
        ("const unsigned int", 4, False),
        ("long", 8, True),
        ("unsigned long long", 8, False),
    ],
)
def test_types_as_sources_write_them(text: str, size: int, signed: bool) -> None:
    spec = CollectionSpec({}, {}, {"x": 64}, declared={"x": text})
    kind = constant_type(spec, "x")
    assert isinstance(kind, Int)
    assert (kind.size, kind.signed, kind.boolean) == (size, signed, False)
    low = -(1 << 8 * size - 1) if signed else 0
    set_constants(spec, {"x": str(low)})
    assert spec.values["x"] == low % (1 << 8 * size)
    with pytest.raises(UsageError, match=rf"constant x \(.+\): {low - 1} is not between {low} and"):
        set_constants(spec, {"x": str(low - 1)})


def test_other_types_of_sources() -> None:
    spec = CollectionSpec(
        {},
        {},
        dict.fromkeys(("on", "port", "ratio", "strange"), 64),
        declared={"on": "bool", "port": "__be16", "ratio": "double", "strange": "struct x *"},
    )
    set_constants(spec, {"on": "true", "port": "443"})
    assert spec.values == {"on": 1, "port": 0xBB01}
    for value, error in (({"on": "2"}, "neither"), ({"ratio": "1"}, r"ratio \(double\) cannot be")):
        with pytest.raises(UsageError, match=error):
            set_constants(spec, value)
    with pytest.raises(
        ProgramError, match=r"constant strange: there is no type struct x \*; write"
    ):
        set_constants(spec, {"strange": "1"})


def test_an_enumeration_of_a_source_is_one_of_its_types(file: Path) -> None:
    types = CollectionSpec.from_object(file).btf
    spec = CollectionSpec({}, {}, {"paint": 64}, declared={"paint": "enum colour"}, btf=types)
    set_constants(spec, {"paint": "BLUE"})
    assert spec.values == {"paint": 7}


def test_a_spec_without_the_text_of_types_goes_by_width() -> None:
    spec = example_spec()
    set_constants(spec, {"flag": "255"})
    with pytest.raises(UsageError, match=r"constant flag \(__u8\): 256 is not between 0 and 255"):
        set_constants(spec, {"flag": 256})


# --- identity -------------------------------------------------------------------------------------


def test_programs_differ_by_their_constants(file: Path) -> None:
    def of(**values: Any) -> bytes:
        spec = CollectionSpec.from_object(file)
        set_constants(spec, values)
        return identity(spec)

    assert of() == b""
    assert of(plain="100") == of(plain="0x64") == of(plain=100)
    assert len({of(), of(plain=1), of(plain=2), of(small=1), of(plain=1, small=1)}) == 5


def test_constants_of_sources_differ_too() -> None:
    spec = example_spec()
    set_constants(spec, {"limit": "1"})
    other = example_spec()
    set_constants(other, {"limit": "2"})
    assert identity(spec) != identity(other)
