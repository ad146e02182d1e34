# SPDX-License-Identifier: GPL-2.0
"""Records for the module struct, and those that the generators cannot describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from construct import Int32ul, Pass, Struct
from hypothesis import given
from hypothesis import strategies as st

from ipttproto.attributes import AttributeHeader
from ipttproto.family import RECORDS, Batch, Event
from ipttproto.layout import fields, packer
from ipttproto.messages import GenericHeader, MessageHeader

PACKED = [AttributeHeader, MessageHeader, GenericHeader, Batch, Event]
PACKED += [record for record, _ in RECORDS.values() if record not in PACKED]


def flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value.encode() if isinstance(value, str) else value


@given(st.data())
def test_struct_finds_what_construct_does(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(PACKED))
    packed = packer(record)
    assert packed.size == record.sizeof()
    raw = data.draw(st.binary(min_size=packed.size, max_size=packed.size))
    parsed: Any = record.parse(raw)
    values = [parsed[member.name] for member in record.subcons]
    assert list(packed.unpack(raw)) == [*flat(values)]
    assert packed.pack(*packed.unpack(raw)) == raw


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (Struct(Int32ul), "a member of a record has no name"),
        (Struct("mark" / Int32ul), "mark has no doc"),
        (Struct("mark" / Pass * "nothing"), "mark: .* has no C type"),
    ],
)
def test_records_without_a_description(record: Struct, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        fields(record)
