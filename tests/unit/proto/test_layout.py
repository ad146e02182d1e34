# SPDX-License-Identifier: GPL-2.0
"""Records that the generators cannot describe are refused at their definition."""

from __future__ import annotations

import pytest
from construct import Int32ul, Pass, Struct

from ipttproto.layout import fields


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
