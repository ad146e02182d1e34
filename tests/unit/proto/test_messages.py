# SPDX-License-Identifier: GPL-2.0
"""Messages and attributes: golden bytes, round trips, and bytes that are no message."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ipttproto import (
    Acknowledgement,
    Command,
    Done,
    Flag,
    Message,
    ProtocolError,
    build_request,
    parse_batch,
    parse_datagram,
)
from ipttproto.attributes import U32, Attribute, AttributeSet
from ipttproto.family import ATTRIBUTE_SETS, Top
from tests.unit.proto.datagrams import values_of

FAMILY_ID = 29

SWAP = bytes.fromhex(
    # netlink: length 80, type 29, REQUEST|ACK, sequence 7, portid 0
    "50000000 1d00 0500 07000000 00000000"
    # generic: swap, version 1
    "02 01 0000"
    # link 3
    "0800 0100 03000000"
    # expect-generation 2
    "0800 0700 02000000"
    # programs (nest)
    "2c00 0580"
    #   program (nest): slot 2, fd 9
    "1400 0180  0800 0100 02000000  0800 0200 09000000"
    #   filter of five bytes, padded
    "0900 0200 0102030405 000000"
    #   cookie would be u64; filter-length 1
    "0800 0400 01000000"
)
SWAP_VALUES: dict[str, Any] = {
    "link": 3,
    "expect-generation": 2,
    "programs": {
        "program": [{"slot": 2, "fd": 9}],
        "filter": bytes([1, 2, 3, 4, 5]),
        "filter-length": 1,
    },
}


def test_request_golden_bytes() -> None:
    built = build_request(FAMILY_ID, Command.SWAP, SWAP_VALUES, sequence=7)
    assert built.hex(" ") == SWAP.hex(" ")


def test_golden_bytes_parse() -> None:
    [message] = parse_datagram(FAMILY_ID, SWAP)
    assert isinstance(message, Message)
    assert (message.sequence, message.command) == (7, Command.SWAP)
    assert message.flags == Flag.REQUEST | Flag.ACK
    assert message.attributes() == SWAP_VALUES


TRANSACT = bytes.fromhex(
    # netlink: length 96, type 29, REQUEST|ACK, sequence 8, portid 0
    "60000000 1d00 0500 08000000 00000000"
    # generic: transact, version 1
    "0b 01 0000"
    # change (nest): link 3, generation 2
    "3400 1e80  0800 0100 03000000  0800 0300 02000000"
    #   expect-program (nest): slot 4, id 77
    "1400 0480  0800 0100 04000000  0800 0300 4d000000"
    #   programs (nest): payload-fd 6
    "0c00 0280  0800 0500 06000000"
    # rollback-after 30000
    "0800 1c00 30750000"
    # priority, signed, -150
    "0800 1500 6affffff"
    # mode 2
    "0800 1a00 02000000"
)
TRANSACT_VALUES: dict[str, Any] = {
    "change": [
        {
            "link": 3,
            "expect-generation": 2,
            "expect-program": [{"slot": 4, "id": 77}],
            "programs": {"payload-fd": 6},
        }
    ],
    "rollback-after": 30000,
    "priority": -150,
    "mode": 2,
}


def test_signed_numbers_and_nested_changes_golden_bytes() -> None:
    built = build_request(FAMILY_ID, Command.TRANSACT, TRANSACT_VALUES, sequence=8)
    assert built.hex(" ") == TRANSACT.hex(" ")
    [message] = parse_datagram(FAMILY_ID, TRANSACT)
    assert isinstance(message, Message)
    assert message.attributes() == TRANSACT_VALUES


def test_refusal_with_extack_golden_bytes() -> None:
    data = bytes.fromhex(
        # length 56, NLMSG_ERROR, CAPPED|ACK_TLVS, sequence 7
        "38000000 0200 0003 07000000 00000000"
        # -EBADF, then the header of the request
        "f7ffffff 50000000 1d00 0500 07000000 00000000"
        # message "no fd", padded; offset 44
        "0a00 0100 6e6f20666400 0000  0800 0200 2c000000"
    )
    assert list(parse_datagram(FAMILY_ID, data)) == [
        Acknowledgement(7, 9, message="no fd", offset=44)
    ]


def test_extack_behind_a_whole_request() -> None:
    extack = bytes.fromhex("0800 0500 05000000 0800 0600 1c000000")
    body = bytes.fromhex("eaffffff") + SWAP + extack
    header = bytes.fromhex("0200 0002 07000000 00000000")
    data = (16 + len(body)).to_bytes(4, "little") + header + body
    assert list(parse_datagram(FAMILY_ID, data)) == [
        Acknowledgement(7, 22, missing=5, missing_nest=28)
    ]


def test_several_messages_of_one_datagram() -> None:
    get = build_request(FAMILY_ID, Command.GET, {"owner-comm": "abc"}, sequence=1, flags=Flag.MULTI)
    other = get[:4] + (77).to_bytes(2, "little") + get[6:]
    done = bytes.fromhex("14000000 0300 1200 01000000 00000000 fcffffff")
    first, end = parse_datagram(FAMILY_ID, get + other + done)
    assert isinstance(first, Message)
    assert first.attributes() == {"owner-comm": "abc"}
    assert end == Done(1, 4, Flag.MULTI | Flag.DUMP_INTERRUPTED)


@pytest.mark.parametrize("error", [1, -4096, -(1 << 31), (1 << 31) - 1])
@pytest.mark.parametrize("kind", [2, 3])
def test_an_error_that_the_kernel_cannot_have_is_an_error(kind: int, error: int) -> None:
    body = error.to_bytes(4, "little", signed=True) + SWAP[:16]
    head = (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little")
    with pytest.raises(ProtocolError, match=f"{error} is not an error"):
        list(parse_datagram(FAMILY_ID, head + bytes(10) + body))


@pytest.mark.parametrize("length", range(1, len(SWAP)))
def test_every_truncation_is_an_error(length: int) -> None:
    with pytest.raises(ProtocolError):
        list(parse_datagram(FAMILY_ID, SWAP[:length]))


@pytest.mark.parametrize("cut", [1, 3, 4, 7, 9])
def test_attributes_cut_short_are_an_error(cut: int) -> None:
    payload = Top.build({"programs": {"program": [{"slot": 1, "fd": 2}]}})
    said = f"attribute 5 says {len(payload)} bytes, {len(payload) - cut} are there"
    with pytest.raises(ProtocolError, match=said):
        Top.parse(payload[:-cut])


def test_bytes_that_are_no_attribute_are_an_error() -> None:
    with pytest.raises(ProtocolError, match="1 bytes after the last attribute"):
        Top.parse(Top.build({"link": 3}) + bytes(1))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"nonsense": 1}, "has no attribute 'nonsense'"),
        ({"link": 0}, "ipttrace.link: 0 is below 1"),
        ({"family": 11}, "ipttrace.family: 11 is above 10"),
        ({"link": 1 << 32}, "ipttrace.link"),
        ({"link": "three"}, "ipttrace.link"),
        ({"owner-comm": "x" * 16}, "16 bytes, at most 15"),
        ({"table": "a\0b"}, "ipttrace.table: there is a NUL in the text"),
        ({"programs": {"program": [{"slot": 9}]}}, "program.slot: 9 is above 6"),
        ({"programs": {"filter": bytes(32769)}}, "at most 32768"),
        ({"batch": bytes(70000)}, "do not fit into an attribute"),
        ({"owner-comm": 7}, "owner-comm: 7 is no text and no bytes"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence.replace("'", ".")):
        Top.build(values)


@given(st.binary(max_size=255).filter(lambda raw: b"\0" not in raw))
def test_texts_of_any_bytes_stay_as_they_are(raw: bytes) -> None:
    values = Top.parse(Top.build({"table": raw}))
    assert values["table"].encode(errors="surrogateescape") == raw
    assert Top.build(values) == Top.build({"table": raw})


def test_attribute_of_a_later_version_is_passed_over() -> None:
    unknown = bytes.fromhex("0600 ff00 abcd 0000")
    assert Top.parse(unknown + Top.build({"link": 3})) == {"link": 3}


def test_scalar_of_another_size_is_an_error() -> None:
    with pytest.raises(ProtocolError, match=r"ipttrace\.link"):
        Top.parse(bytes.fromhex("0600 0100 0300 0000"))
    with pytest.raises(ProtocolError, match=r"ipttrace\.link"):
        Top.parse(bytes.fromhex("0c00 0100 0300000000000000"))


@pytest.mark.parametrize(
    ("raw", "said"), [("0600 0e00 6162 0000", "has no NUL"), ("0800 0e00 6100 6200", "behind")]
)
def test_a_text_ends_with_the_only_nul(raw: str, said: str) -> None:
    table = Top.by_name["table"].number
    with pytest.raises(ProtocolError, match=rf"ipttrace\.table: .*{said}"):
        Top.parse(bytes.fromhex(raw.replace("0e00", f"{table:02x}00")))


def test_number_or_name_cannot_be_used_twice() -> None:
    with pytest.raises(ValueError, match="used twice"):
        AttributeSet("x", "x", Attribute("a", 1, U32, "a"), Attribute("b", 1, U32, "b"))
    with pytest.raises(ValueError, match="used twice"):
        AttributeSet("x", "x", Attribute("a", 1, U32, "a"), Attribute("a", 2, U32, "b"))


@pytest.mark.parametrize("space", ATTRIBUTE_SETS, ids=lambda space: space.name)
def test_what_is_built_parses_to_the_same(space: AttributeSet) -> None:
    @given(values_of(space))
    def check(values: dict[str, Any]) -> None:
        assert space.parse(space.build(values)) == values

    check()


@pytest.mark.parametrize(
    "parse",
    [
        lambda data: [
            m.attributes() for m in parse_datagram(FAMILY_ID, data) if isinstance(m, Message)
        ],
        Top.parse,
        parse_batch,
    ],
    ids=["datagram", "attributes", "batch"],
)
def test_any_bytes_are_a_value_or_a_protocol_error(parse: Callable[[bytes], Any]) -> None:
    pieces = st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(0, len(SWAP)), st.binary(max_size=40)).map(
            lambda cut: SWAP[: cut[0]] + cut[1]
        ),
        st.tuples(st.integers(0, len(SWAP) - 1), st.integers(0, 255)).map(
            lambda at: SWAP[: at[0]] + bytes([at[1]]) + SWAP[at[0] + 1 :]
        ),
    )

    @given(pieces)
    @example(b"")
    @example(SWAP)
    def check(data: bytes) -> None:
        with contextlib.suppress(ProtocolError):
            parse(data)

    check()
