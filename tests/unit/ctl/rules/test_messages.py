# SPDX-License-Identifier: GPL-2.0
"""Messages of nf_tables: parsed, and refused where they are malformed."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from ipttctl.rules import messages
from ipttctl.rules.messages import BaseHook, End, MalformedError, NftMessage, NftMessageKind
from tests.unit.ctl.rules import support
from tests.unit.ctl.rules.support import ACCEPT, attribute, u32


def only(datagram: bytes) -> NftMessage:
    (found,) = messages.split(datagram)
    assert isinstance(found, NftMessage)
    return found


def test_a_rule() -> None:
    raw = support.rule(7, ACCEPT, "input")
    found = only(support.rule_message(6, raw, 0x12345))
    assert found.kind is NftMessageKind.NEW_RULE
    assert found.generation == 0x2345
    assert messages.parse_rule(found) == raw


def test_a_base_chain() -> None:
    hook = attribute(1, u32(3)) + attribute(2, u32(-150 & 0xFFFFFFFF))
    body = (
        attribute(1, b"t\0")
        + attribute(2, (9).to_bytes(8, "big"))
        + attribute(3, b"caf\xe9\0")
        + attribute(4 | 0x8000, hook)
        + attribute(7, b"route\0")
    )
    chain = messages.parse_chain(only(support.message(3, 2, 1, body)))
    assert chain == (2, "t", "caf\udce9", 9, BaseHook(3, -150), "route", False)


def test_a_generation() -> None:
    assert messages.parse_generation(only(support.generation_message(1 << 31))) == 1 << 31


def test_the_end_of_a_dump() -> None:
    assert list(messages.split(support.done(5, messages.INTERRUPTED))) == [End(0, 0x10, 5)]


def test_other_kinds_are_left_out() -> None:
    assert not list(messages.split(support.message(9, 2, 1, b"")))


def test_names_select_what_is_dumped() -> None:
    request = only(
        messages.request(NftMessageKind.GET_RULE, 5, 2, [(1, "filter"), (2, "caf\udce9")])
    )
    assert {n: messages.text(data) for n, data in messages.attributes(request.body)} == {
        1: "filter",
        2: "caf\udce9",
    }


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for datagram in (data, support.message(6, 1, 1, data)):
        with suppress(MalformedError):
            for found in messages.split(datagram):
                if isinstance(found, NftMessage):
                    messages.parse_table(found)
                    messages.parse_chain(found)
                    messages.parse_rule(found)
                    messages.parse_generation(found)
