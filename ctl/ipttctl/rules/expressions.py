# SPDX-License-Identifier: GPL-2.0
"""The expressions of a rule: compared without their state, and in words.

The words stand for a rule that no program lists.

Words are those of `nft --debug=netlink`, shorter; `...` stands for those that an expression would
have besides. Numbers are those of
include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ipttctl.escape import Escaped, escape, word
from ipttctl.rules.messages import MalformedError, attributes, nested, number, text
from ipttproto import Verdict

#: expressions whose attributes hold counts that packets change
_STATEFUL: Final = frozenset({"counter", "quota", "last"})

#: those attributes of them that are settings: bytes and flags
_SETTINGS: Final = {"quota": (1, 2)}

#: NFT_BREAK is inside the evaluation of a rule, and no event has it
_VERDICTS: Final = {int(v): v.name.lower() for v in Verdict} | {-2 & 0xFFFFFFFF: "break"}
_COMPARISONS: Final = ("eq", "neq", "lt", "lte", "gt", "gte")
_BASES: Final = ("link", "network", "transport", "inner")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: keys by their numbers
_META: Final = _names(
    "len protocol priority mark iif oif iifname oifname iiftype oiftype skuid skgid nftrace"
    " rtclassid secmark nfproto l4proto ibrname obrname pkttype cpu iifgroup oifgroup cgroup"
    " random ipsec iifkind oifkind ibrpvid ibrvproto time day hour sdif sdifname"
)
_CT: Final = _names(
    "state direction status mark secmark expiration helper l3protocol src dst protocol"
    " proto-src proto-dst labels packets bytes avgpkt zone event src-ip dst-ip src-ip6 dst-ip6"
    " id"
)


#: attributes that are in the words of an expression, and those that say nothing: registers, sums,
#: what was counted
_TOLD: Final[Mapping[str, frozenset[int]]] = {
    "immediate": frozenset({1, 2}),
    "cmp": frozenset({1, 2, 3}),
    "meta": frozenset({1, 2, 3}),
    "ct": frozenset({1, 2, 3, 4}),
    "payload": frozenset(range(1, 9)),
    "bitwise": frozenset(range(1, 8)),
    "byteorder": frozenset(range(1, 6)),
    "range": frozenset({1, 2, 3, 4}),
    "lookup": frozenset(range(1, 6)),
    "dynset": frozenset({1, 2, 3, 4, 5, 8, 9}),
    "match": frozenset({1, 2}),
    "target": frozenset({1, 2}),
    "comment": frozenset({1, 2, 3}),
    "limit": frozenset(range(1, 7)),
    "quota": frozenset({1, 2, 3, 4}),
    "counter": frozenset({1, 2, 3}),
    "last": frozenset({1, 2, 3}),
    "log": frozenset({1, 2}),
    "queue": frozenset({1, 4}),
    "reject": frozenset({1, 2}),
    "nat": frozenset(range(1, 7)),
    "masq": frozenset({2, 3}),
    "redir": frozenset({1, 2}),
    "tproxy": frozenset({1, 2, 3}),
    "dup": frozenset({1, 2}),
    "fwd": frozenset({1, 2, 3}),
    "objref": frozenset(range(1, 6)),
    "flow_offload": frozenset({1}),
}
#: what some attributes have where nobody says another thing: the level of a log, the number of
#: queues, flags of NAT that there are addresses and ports
_USUAL: Final[Mapping[tuple[str, int], Sequence[int]]] = {
    ("log", 5): (4,),
    ("queue", 2): (1,),
    ("nat", 7): (1, 2, 3),
    ("masq", 1): (2,),
    ("redir", 3): (2,),
}
_USUAL_BURST: Final = 5
_ANY: Final = frozenset({("match", 3), ("target", 3)})


class Expression(NamedTuple):
    """An expression: its name and its attributes."""

    name: str
    data: memoryview


def expressions(data: bytes) -> list[Expression]:
    """The expressions of a rule (NFTA_RULE_EXPRESSIONS).

    Raises:
        MalformedError: a length is wrong.
    """
    found = []
    for _, element in attributes(data):
        parts = nested(element)
        found.append(Expression(text(parts.get(1, b"")), parts.get(2, memoryview(b""))))
    return found


def same(one: bytes, other: bytes) -> bool:
    """Whether two lists of expressions say the same, whatever was counted meanwhile."""
    if one == other:
        return True
    if len(one) != len(other):
        return False
    start = 0
    while start < len(one):
        # most are equal as they are: only the others are looked into
        length = max(4, int.from_bytes(one[start : start + 2], sys.byteorder))
        end = start + (length + 3 & ~3)
        if one[start:end] != other[start:end] and not _counted(one[start:end], other[start:end]):
            return False
        start = end
    return True


def _counted(one: bytes, other: bytes) -> bool:
    """Whether two elements of a list are the same expression, with other counts."""
    try:
        ((ours, before),), ((theirs, after),) = expressions(one), expressions(other)
    except (MalformedError, ValueError):
        return False
    if ours != theirs or ours not in _STATEFUL:
        return False
    settings, others = nested(before), nested(after)
    return all(settings.get(key) == others.get(key) for key in _SETTINGS.get(ours, ()))


def chains(data: bytes) -> list[str]:
    """The chains that a rule jumps to, other than by a map.

    Raises:
        MalformedError: a length is wrong.
    """
    values = [
        nested(nested(e.data).get(2, b"")) for e in expressions(data) if e.name == "immediate"
    ]
    verdicts = [nested(value[2]) for value in values if 2 in value]
    return [text(verdict[2]) for verdict in verdicts if 2 in verdict]


def uses_sets(data: bytes) -> bool:
    """Whether a rule names a set: its own, whose name is given to others later, or a known one."""
    return any(name in data for name in (b"lookup\0", b"dynset\0", b"objref\0"))


def raw_text(data: bytes, userdata: bytes = b"") -> Escaped:
    """The expressions and the comment of a rule, in words.

    ``meta iifname, cmp eq 0x6c6f00, counter, immediate accept``
    """
    try:
        words = ", ".join(_words(e) for e in expressions(data)) or "no expression"
    except MalformedError:
        words = "expressions that cannot be read"
    return escape(words + _comment(userdata))


def _comment(userdata: bytes) -> str:
    """The comment in what nft keeps beside a rule: fields of one byte type and one byte length."""
    start = 0
    while start + 2 <= len(userdata):
        kind, length = userdata[start : start + 2]
        if kind == 0:
            return f' comment "{_quoted(userdata[start + 2 : start + 2 + length])}"'
        start += 2 + length
    return ""


def _quoted(data: bytes | memoryview) -> str:
    return text(data).replace("\\", r"\\").replace('"', r"\"")


def _words(expression: Expression) -> str:
    write = _WRITERS.get(expression.name)
    name = word(expression.name)
    parts = nested(expression.data)
    words = [name, *(part for part in write(parts) if part)] if write else [name]
    of_xtables = expression.name in {"match", "target"}
    kind = "comment" if of_xtables and text(parts.get(1, b"")) == "comment" else expression.name
    if any(_untold(kind, key, value) for key, value in parts.items()):
        words.append("...")
    return " ".join(words)


def _untold(name: str, key: int, value: memoryview) -> bool:
    """Whether an attribute says something that the words of its expression do not."""
    if key in _TOLD.get(name, ()) or not value:
        return False
    # zeros are no setting, but in what extensions of xtables have
    return (name, key) in _ANY or number(value) not in {0, *_USUAL.get((name, key), ())}


_Attributes = Mapping[int, memoryview]


def _of(names: Sequence[str], value: int) -> str:
    return names[value] if value < len(names) else str(value)


def _value(data: memoryview | bytes) -> str:
    """A value (NFTA_DATA_VALUE), or a verdict with its chain."""
    parts = nested(data)
    if 2 in parts:
        verdict = nested(parts[2])
        code = number(verdict.get(1, b""))
        chain = f" {word(text(verdict[2]))}" if 2 in verdict else ""
        return _VERDICTS.get(code, f"verdict {code:#x}") + chain
    return f"0x{bytes(parts.get(1, b'')).hex()}"


def _immediate(a: _Attributes) -> Iterator[str]:
    yield _value(a.get(2, b""))


def _compare(a: _Attributes) -> Iterator[str]:
    yield _of(_COMPARISONS, number(a.get(2, b"")))
    yield _value(a.get(3, b""))


def _meta(a: _Attributes) -> Iterator[str]:
    if 3 in a:
        yield "set"
    yield _of(_META, number(a.get(2, b"")))


def _conntrack(a: _Attributes) -> Iterator[str]:
    if 4 in a:
        yield "set"
    if 3 in a:
        yield _of(("original", "reply"), number(a[3]))
    yield _of(_CT, number(a.get(2, b"")))


def _payload(a: _Attributes) -> Iterator[str]:
    if 5 in a:
        yield "set"
    yield f"{number(a.get(4, b''))}b@{_of(_BASES, number(a.get(2, b'')))}+{number(a.get(3, b''))}"


def _bitwise(a: _Attributes) -> Iterator[str]:
    if 4 in a:
        yield f"& {_value(a[4])}"
    if 5 in a and any(nested(a[5]).get(1, b"")):
        yield f"^ {_value(a[5])}"
    if operation := number(a.get(6, b"")):
        yield _of(("", "<<", ">>", "and", "or", "xor"), operation)
        if 7 in a:
            yield _value(a[7])


def _range(a: _Attributes) -> Iterator[str]:
    yield _of(_COMPARISONS, number(a.get(2, b"")))
    yield f"{_value(a.get(3, b''))}-{_value(a.get(4, b''))}"


def _lookup(a: _Attributes) -> Iterator[str]:
    if number(a.get(5, b"")) & 1:
        yield "not"
    yield f"@{word(text(a.get(1, b'')))}"


def _dynset(a: _Attributes) -> Iterator[str]:
    if number(a.get(9, b"")) & 1:
        yield "not"
    yield _of(("add", "update", "delete"), number(a.get(3, b"")))
    yield f"@{word(text(a.get(1, b'')))}"


def _extension(a: _Attributes) -> Iterator[str]:
    name = text(a.get(1, b""))
    yield word(name)
    if name == "comment":
        yield f'"{_quoted(a.get(3, b""))}"'


def _limit(a: _Attributes) -> Iterator[str]:
    of_bytes = number(a.get(4, b""))
    if number(a.get(5, b"")) & 1:
        yield "over"
    yield f"{number(a.get(1, b''))}{' bytes' if of_bytes else ''}/{number(a.get(2, b''))}s"
    burst = number(a.get(3, b""))
    if burst != (0 if of_bytes else _USUAL_BURST):
        yield f"burst {burst}"


def _quota(a: _Attributes) -> Iterator[str]:
    if number(a.get(2, b"")) & 1:
        yield "over"
    yield f"{number(a.get(1, b''))} bytes"


def _log(a: _Attributes) -> Iterator[str]:
    if 2 in a:
        yield f'prefix "{_quoted(a[2])}"'
    if 1 in a:
        yield f"group {number(a[1])}"


def _queue(a: _Attributes) -> Iterator[str]:
    yield str(number(a.get(1, b"")))


def _reject(a: _Attributes) -> Iterator[str]:
    kind = number(a.get(1, b""))
    yield _of(("icmp", "tcp reset", "icmpx"), kind)
    if 2 in a and kind != 1:
        yield f"code {number(a[2])}"


def _nat(a: _Attributes) -> Iterator[str]:
    yield _of(("snat", "dnat"), number(a.get(1, b"")))


def _object(a: _Attributes) -> Iterator[str]:
    if 2 in a:
        yield word(text(a[2]))
    elif 4 in a:
        yield f"@{word(text(a[4]))}"


def _flow(a: _Attributes) -> Iterator[str]:
    yield f"@{word(text(a.get(1, b'')))}"


_WRITERS: Final[Mapping[str, Callable[[_Attributes], Iterator[str]]]] = {
    "immediate": _immediate,
    "cmp": _compare,
    "meta": _meta,
    "ct": _conntrack,
    "payload": _payload,
    "bitwise": _bitwise,
    "range": _range,
    "lookup": _lookup,
    "dynset": _dynset,
    "match": _extension,
    "target": _extension,
    "limit": _limit,
    "quota": _quota,
    "log": _log,
    "queue": _queue,
    "reject": _reject,
    "nat": _nat,
    "objref": _object,
    "flow_offload": _flow,
}
