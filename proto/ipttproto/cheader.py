# SPDX-License-Identifier: GPL-2.0
"""Writes the C side of the protocol.

The header that user space, BPF and the module share, and the attribute policies of the module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from construct import Struct

from ipttproto import family
from ipttproto.attributes import Attribute, AttributeSet
from ipttproto.family import Documented
from ipttproto.fingerprint import FINGERPRINT
from ipttproto.layout import fields
from ipttproto.naming import kebab, snake, upper

REPLY_ONLY: Final = "the attribute is for replies: a request does not have it"
"""What the kernel says of an attribute of a request's nest that only replies carry."""

_POLICY_MOST: Final = (1 << 15) - 1
"""The largest bound that struct nla_policy holds itself: its members are s16."""

_REQUESTS: Final = tuple(op for op in family.OPERATIONS if op.group is None)

_NOTICE = "/* Generated from ipttproto/family.py by `make generate`; do not edit. */"


def uapi_header() -> str:
    """The text of ipttrace_netlink.h: names, limits, attributes, commands, records."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0 */",
        _NOTICE,
        "#ifndef _IPTTRACE_NETLINK_H",
        "#define _IPTTRACE_NETLINK_H",
        "",
        "#include <linux/types.h>",
        "",
        f'#define IPTTRACE_FAMILY_NAME "{family.FAMILY}"',
        f"#define IPTTRACE_FAMILY_VERSION {family.VERSION}",
        f"#define IPTTRACE_FINGERPRINT 0x{FINGERPRINT:08x}U",
    ]
    lines += [f'#define IPTTRACE_GROUP_{upper(g.name)} "{g.value}"' for g in family.Group]
    lines.append("")
    for name, (value, doc) in family.LIMITS.items():
        lines += [f"/* {doc} */", f"#define IPTTRACE_{name} {value}"]
    for enumeration in Documented.__subclasses__():
        name = kebab(enumeration.__name__)
        prefix = "CMD" if enumeration is family.Command else upper(name)
        lines += ["", *_enum(snake(name), prefix, enumeration)]
    for space in family.ATTRIBUTE_SETS:
        lines += ["", *_attribute_enum(space)]
    for name, (record, doc) in family.RECORDS.items():
        lines += ["", *_struct(name, record, doc)]
    lines += ["", "#endif /* _IPTTRACE_NETLINK_H */", ""]
    return "\n".join(lines)


def policy_header() -> str:
    """The text of netlink_policy.h: declares what netlink_policy.c defines."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0 */",
        _NOTICE,
        "#ifndef _IPTTRACE_NETLINK_POLICY_H",
        "#define _IPTTRACE_NETLINK_POLICY_H",
        "",
        "#include <net/netlink.h>",
        "",
        '#include "ipttrace_netlink.h"',
        "",
    ]
    for name, space, names in _policies():
        lines += [f"extern const struct nla_policy\n{_policy_array(name, space, names)};"]
    lines += ["", "#endif /* _IPTTRACE_NETLINK_POLICY_H */", ""]
    return "\n".join(lines)


def policy_source() -> str:
    """The text of netlink_policy.c: one policy for each request, one for each nest it holds."""
    lines = [
        "// SPDX-License-Identifier: GPL-2.0",
        _NOTICE,
        '#include "layout_check.h"',
        '#include "netlink_policy.h"',
        "",
        "#define REPLY_ONLY \\",
        "\t{ .type = NLA_REJECT, \\",
        f'\t  .reject_message = "{REPLY_ONLY}" }}',
    ]
    for a in _wide():
        lines += ["", *_range(a)]
    for name, space, names in _policies():
        lines += ["", *_policy(name, space, names)]
    return "\n".join([*lines, ""])


def layout_check() -> str:
    """The text of layout_check.h: asserts that the compiler laid the records out as we did."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0 */",
        _NOTICE,
        "#ifndef _IPTTRACE_LAYOUT_CHECK_H",
        "#define _IPTTRACE_LAYOUT_CHECK_H",
        "",
        "#ifdef __KERNEL__",
        "#include <linux/build_bug.h>",
        "#include <linux/stddef.h>",
        "#else",
        "#include <assert.h>",
        "#include <stddef.h>",
        "#endif",
        "",
        '#include "ipttrace_netlink.h"',
        "",
    ]
    for name, (record, _) in family.RECORDS.items():
        struct = f"struct ipttrace_{name}"
        lines.append(f'static_assert(sizeof({struct}) == {record.sizeof()}, "{struct}");')
        lines += [
            f"static_assert(offsetof({struct}, {field.name}) == {field.offset},\n"
            f'\t      "{name}.{field.name}");'
            for field in fields(record)
        ]
    lines += ["", "#endif /* _IPTTRACE_LAYOUT_CHECK_H */", ""]
    return "\n".join(lines)


def _enum(name: str, prefix: str, enumeration: type[Documented]) -> Iterator[str]:
    yield from _comment(enumeration.__doc__ or "")
    yield f"enum ipttrace_{name} {{"
    for member in enumeration:
        yield from _member(f"IPTTRACE_{prefix}_{member.name}", member.value, member.doc)
    yield "};"


def _attribute_enum(space: AttributeSet) -> Iterator[str]:
    name = _attribute_prefix(space)
    yield from _comment(space.doc)
    yield f"enum {name.lower()} {{"
    for a in space.attributes:
        kind = f"nest of {a.nested.name}" if a.nested else getattr(a.type, "ynl", "")
        yield from _member(f"{name}_{upper(a.name)}", a.number, f"{kind}: {a.doc}")
    yield f"\t{name}_MAX = {max(space.by_number)}"
    yield "};"


def _struct(name: str, record: Struct, doc: str) -> Iterator[str]:
    yield from _comment(doc)
    yield f"struct ipttrace_{name} {{"
    for field in fields(record):
        count = f"[{field.count}]" if field.count else ""
        yield from _comment(field.doc, "\t")
        yield f"\t{field.c_type} {field.name}{count};"
    yield "};"


def _policies() -> Iterator[tuple[str, AttributeSet, Iterable[str]]]:
    """(name, set, attributes that may be there) of each policy, nested ones first."""
    for space in _nests():
        yield snake(space.name), space, space.by_name
    for operation in _REQUESTS:
        yield operation.command.name.lower(), family.Top, operation.request


def _policy_array(name: str, space: AttributeSet, names: Iterable[str]) -> str:
    """The array's declarator."""
    prefix = _attribute_prefix(space)
    chosen = sorted((space.by_name[n] for n in names), key=lambda a: a.number)
    # an array of one entry would mean that nothing is checked
    last = chosen[-1] if chosen else space.attributes[0]
    return f"ipttrace_{name}_policy[{prefix}_{upper(last.name)} + 1]"


def _policy(name: str, space: AttributeSet, names: Iterable[str]) -> Iterator[str]:
    """The policy of a request that may hold ``names``; what is left out is refused."""
    yield "const struct nla_policy"
    yield f"{_policy_array(name, space, names)} = {{"
    for a in sorted((space.by_name[n] for n in names), key=lambda a: a.number):
        yield f"\t[{_attribute_prefix(space)}_{upper(a.name)}] = {_policy_entry(a)},"
    yield "};"


def _wide() -> list[Attribute]:
    """The attributes of requests whose bounds do not fit into a policy's own 16 bits."""
    held = {id(a): a for _, space, names in _policies() for a in (space.by_name[n] for n in names)}
    return [a for a in held.values() if (a.maximum or 0) > _POLICY_MOST]


def _range(a: Attribute) -> Iterator[str]:
    # const only where struct nla_policy takes it so, which 6.1 does not
    yield "static struct netlink_range_validation"
    yield f"{snake(a.name)}_range = {{"
    yield f"\t.min = {a.minimum or 0},"
    yield f"\t.max = {a.maximum},"
    yield "};"


def _policy_entry(a: Attribute) -> str:
    if a.nested:
        return f"NLA_POLICY_NESTED(ipttrace_{snake(a.nested.name)}_policy)"
    if a.reply:
        return "REPLY_ONLY"
    policy = getattr(a.type, "policy", "")
    if a.max_length is not None:
        return f"{{ .type = {policy}, .len = {a.max_length} }}"
    if a.minimum is not None or a.maximum is not None:
        return _bounded(policy, a)
    return f"{{ .type = {policy} }}"


def _bounded(policy: str, a: Attribute) -> str:
    if a.maximum is None:
        return f"NLA_POLICY_MIN({policy}, {a.minimum})"
    if a.maximum > _POLICY_MOST:
        return f"NLA_POLICY_FULL_RANGE({policy}, &{snake(a.name)}_range)"
    if a.minimum is None:
        return f"NLA_POLICY_MAX({policy}, {a.maximum})"
    return f"NLA_POLICY_RANGE({policy}, {a.minimum}, {a.maximum})"


def _nests() -> list[AttributeSet]:
    """The sets nested in requests, inner ones before the ones that hold them."""
    found: list[AttributeSet] = []

    def visit(space: AttributeSet) -> None:
        for attribute in space.attributes:
            if attribute.nested:
                visit(attribute.nested)
        if space not in found:
            found.append(space)

    for operation in _REQUESTS:
        for name in operation.request:
            nested = family.Top.by_name[name].nested
            if nested:
                visit(nested)
    return found


def _member(name: str, value: int, doc: str) -> Iterator[str]:
    yield from _comment(doc, "\t")
    yield f"\t{name} = {value},"


def _comment(text: str, indent: str = "") -> Iterator[str]:
    words = " ".join(text.split())
    width = 86
    if len(words) <= width:
        yield f"{indent}/* {words} */"
        return
    yield f"{indent}/*"
    line = ""
    for word in words.split():
        if len(line) + len(word) + 1 > width:
            yield f"{indent} * {line}"
            line = word
        else:
            line = f"{line} {word}".strip()
    yield f"{indent} * {line}"
    yield f"{indent} */"


def _attribute_prefix(space: AttributeSet) -> str:
    return "IPTTRACE_A" if space is family.Top else f"IPTTRACE_A_{upper(space.name)}"
