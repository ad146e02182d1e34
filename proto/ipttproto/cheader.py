# SPDX-License-Identifier: GPL-2.0
"""Generate the C side of the protocol.

It is the header that user space, BPF and the module share, and the module's table of operations
with their attribute policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from construct import Struct

from ipttproto import family
from ipttproto.attributes import Attribute, AttributeSet
from ipttproto.enumerations import DEFINED, DocumentedType, Feature
from ipttproto.fingerprint import FINGERPRINT
from ipttproto.layout import fields
from ipttproto.naming import kebab, snake, upper
from ipttproto.operations import OPERATIONS, Command, Group, Operation

REPLY_ONLY: Final = "the attribute is for replies: a request does not have it"
"""The kernel's message about an attribute in a request that only replies may carry."""

_POLICY_MOST: Final = (1 << 15) - 1
"""The largest bound that fits into struct nla_policy itself: its members are s16."""

_REQUESTS: Final = tuple(op for op in OPERATIONS if op.group is None)

_OPERATIONS: Final = f"ipttrace_nl_operations[{len(_REQUESTS)}]"
"""The declarator of the table of operations."""

_NOTICE = "/* Generated from ipttproto/family.py by `make generate`; do not edit. */"


def uapi_header() -> str:
    """The text of ipttrace_netlink.h: names, limits, attributes, commands, records."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0 */",
        _NOTICE,
        "#ifndef _IPTTRACE_NETLINK_H",
        "#define _IPTTRACE_NETLINK_H",
        "",
        "#ifndef __VMLINUX_H__ /* which has these types itself */",
        "#include <linux/types.h>",
        "#endif",
        "",
        f'#define IPTTRACE_FAMILY_NAME "{family.FAMILY}"',
        f"#define IPTTRACE_FAMILY_VERSION {family.VERSION}",
        f"#define IPTTRACE_PROTOCOL_MINOR {family.MINOR}",
        f"#define IPTTRACE_FEATURES 0x{sum(Feature):x}U",
        f"#define IPTTRACE_FINGERPRINT 0x{FINGERPRINT:08x}U",
    ]
    lines += [f'#define IPTTRACE_GROUP_{upper(g.name)} "{g.value}"' for g in Group]
    lines.append("")
    for name, (value, doc) in family.LIMITS.items():
        lines += [f"/* {doc} */", f"#define IPTTRACE_{name} {value}"]
    for enumeration in DEFINED:
        name = kebab(enumeration.__name__)
        prefix = "CMD" if enumeration is Command else upper(name)
        lines += ["", *_enum(snake(name), prefix, enumeration)]
    for space in family.ATTRIBUTE_SETS:
        lines += ["", *_attribute_enum(space)]
    for name, (record, doc) in family.RECORDS.items():
        lines += ["", *_struct(name, record, doc)]
    lines += ["", "#endif /* _IPTTRACE_NETLINK_H */", ""]
    return "\n".join(lines)


def module_header() -> str:
    """The text of netlink_gen.h: declarations of netlink_gen.c, and of the functions it calls."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0 */",
        _NOTICE,
        "#ifndef _IPTTRACE_NETLINK_GEN_H",
        "#define _IPTTRACE_NETLINK_GEN_H",
        "",
        "#include <net/genetlink.h>",
        "",
        '#include "ipttrace_netlink.h"',
        "",
        "/* Attributes that the nests of requests may hold. */",
    ]
    lines += [f"extern const struct nla_policy\n{_nest_policy(space)};" for space in _nests()]
    lines += [
        "",
        "/* Every request, with what it may hold. */",
        f"extern const struct genl_ops {_OPERATIONS};",
        "",
        "/* The handlers of the operations: netlink.c. */",
    ]
    for operation in _REQUESTS:
        lines += ["", *_comment(operation.command.doc), *_declarations(operation)]
    lines += ["", "#endif /* _IPTTRACE_NETLINK_GEN_H */", ""]
    return "\n".join(lines)


def module_source() -> str:
    """The text of netlink_gen.c: the policies of requests and nests, and the operations."""
    lines = [
        "// SPDX-License-Identifier: GPL-2.0",
        _NOTICE,
        '#include "layout_check.h"',
        '#include "netlink_gen.h"',
        "",
        "#define REPLY_ONLY \\",
        "\t{ .type = NLA_REJECT, \\",
        f'\t  .reject_message = "{REPLY_ONLY}" }}',
    ]
    for a in _wide():
        lines += ["", *_range(a)]
    for space in _nests():
        lines += ["", *_policy(_nest_policy(space), space, space.by_name)]
    for operation in _REQUESTS:
        policy = _policy(_request_policy(operation), family.Top, operation.request)
        lines += ["", *_static(policy)]
    lines += ["", f"const struct genl_ops {_OPERATIONS} = {{"]
    for operation in _REQUESTS:
        lines += _operation(operation)
    lines += ["};", ""]
    return "\n".join(lines)


def layout_check() -> str:
    """The text of layout_check.h: assertions that the compiler lays out the records as we do."""
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


def _enum(name: str, prefix: str, enumeration: DocumentedType) -> Iterator[str]:
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


def _nest_policy(space: AttributeSet) -> str:
    """The declarator of a nest's policy."""
    return _policy_array(snake(space.name), space, space.by_name)


def _request_policy(operation: Operation) -> str:
    """The declarator of a request's policy.

    It is as long as there are attributes: code that several requests share finds those of the
    others in none, and not behind the end of what was parsed.
    """
    return f"ipttrace_{_name(operation)}_policy[IPTTRACE_A_MAX + 1]"


def _policy_array(name: str, space: AttributeSet, names: Iterable[str]) -> str:
    return f"ipttrace_{name}_policy[{_last(space, names)} + 1]"


def _last(space: AttributeSet, names: Iterable[str]) -> str:
    """The greatest number with an entry in a policy."""
    chosen = sorted((space.by_name[n] for n in names), key=lambda a: a.number)
    # an array of one entry would mean that nothing is checked
    last = chosen[-1] if chosen else space.attributes[0]
    return f"{_attribute_prefix(space)}_{upper(last.name)}"


def _policy(declarator: str, space: AttributeSet, names: Iterable[str]) -> Iterator[str]:
    """The policy that allows ``names``; all other attributes are refused."""
    yield "const struct nla_policy"
    yield f"{declarator} = {{"
    for a in sorted((space.by_name[n] for n in names), key=lambda a: a.number):
        yield f"\t[{_attribute_prefix(space)}_{upper(a.name)}] = {_policy_entry(a)},"
    yield "};"


def _static(definition: Iterable[str]) -> Iterator[str]:
    first, *rest = definition
    yield f"static {first}"
    yield from rest


def _name(operation: Operation) -> str:
    return operation.command.name.lower()


def _declarations(operation: Operation) -> Iterator[str]:
    """Declarations of the functions in netlink.c that carry out a request."""
    prefix = f"int ipttrace_nl_{_name(operation)}"
    yield f"{prefix}_doit(struct sk_buff *skb, struct genl_info *info);"
    if operation.dump:
        yield f"{prefix}_start(struct netlink_callback *cb);"
        yield f"{prefix}_dumpit(struct sk_buff *skb, struct netlink_callback *cb);"


def _operation(operation: Operation) -> Iterator[str]:
    """The table entry of a request; all requests are for the administrator only."""
    name = _name(operation)
    yield "\t{"
    yield f"\t\t.cmd = IPTTRACE_CMD_{operation.command.name},"
    yield "\t\t.flags = GENL_ADMIN_PERM,"
    yield f"\t\t.doit = ipttrace_nl_{name}_doit,"
    if operation.dump:
        yield f"\t\t.start = ipttrace_nl_{name}_start,"
        yield f"\t\t.dumpit = ipttrace_nl_{name}_dumpit,"
    yield f"\t\t.policy = ipttrace_{name}_policy,"
    yield "\t\t.maxattr = IPTTRACE_A_MAX,"
    yield "\t},"


def _wide() -> list[Attribute]:
    """The attributes of requests whose bounds do not fit into a policy's 16 bits."""
    held = {id(a): a for space in _nests() for a in space.attributes}
    held |= {id(a): a for op in _REQUESTS for a in (family.Top.by_name[n] for n in op.request)}
    return [a for a in held.values() if (a.maximum or 0) > _POLICY_MOST]


def _range(a: Attribute) -> Iterator[str]:
    # not const: struct nla_policy of 6.1 does not take it so
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
    """The sets nested in requests, inner ones before the outer ones."""
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
