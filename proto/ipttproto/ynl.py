# SPDX-License-Identifier: GPL-2.0
"""Generate the family's YNL spec (Documentation/netlink/specs in the kernel).

The schema is genetlink-legacy: only it has struct definitions, which the records need.
"""

from __future__ import annotations

from typing import Any

import yaml

from ipttproto import family
from ipttproto.attributes import BINARY, Attribute, AttributeSet
from ipttproto.enumerations import DEFINED, DocumentedFlag, DocumentedType
from ipttproto.layout import Field, fields
from ipttproto.naming import kebab
from ipttproto.operations import OPERATIONS, Command, Group, Operation


def spec() -> dict[str, Any]:
    """The spec as a mapping, to be written as YAML."""
    return {
        "name": family.FAMILY,
        "protocol": "genetlink-legacy",
        "version": family.VERSION,
        "kernel-policy": "per-op",
        "uapi-header": "ipttrace_netlink.h",
        "doc": "Run BPF programs where netfilter decides over packets.",
        "definitions": [
            *(
                {"name": name.lower().replace("_", "-"), "type": "const", "value": value}
                for name, (value, _) in family.LIMITS.items()
            ),
            *(_enum(e) for e in DEFINED if e is not Command),
            *(
                {
                    "name": name,
                    "type": "struct",
                    "doc": doc,
                    "members": [_member(f) for f in fields(record)],
                }
                for name, (record, doc) in family.RECORDS.items()
            ),
        ],
        "attribute-sets": [_attribute_set(space) for space in family.ATTRIBUTE_SETS],
        "operations": {
            "enum-model": "unified",
            "name-prefix": "ipttrace-cmd-",
            "list": [_operation(op) for op in OPERATIONS],
        },
        "mcast-groups": {
            "list": [{"name": group.value, "flags": ["admin-perm"]} for group in Group]
        },
    }


def text() -> str:
    """The text of the YAML file."""
    head = (
        "# SPDX-License-Identifier: GPL-2.0\n"
        "# Generated from ipttproto/family.py by `make generate`; do not edit.\n"
    )
    body = yaml.safe_dump(spec(), sort_keys=False, width=96, allow_unicode=True)
    return head + body


def _enum(enumeration: DocumentedType) -> dict[str, Any]:
    flags = issubclass(enumeration, DocumentedFlag)
    entries = []
    for member in enumeration:
        entry: dict[str, Any] = {
            "name": (member.name or "").lower().replace("_", "-"),
            "doc": member.doc,
        }
        entry["value"] = member.value.bit_length() - 1 if flags else member.value
        entries.append(entry)
    return {
        "name": kebab(enumeration.__name__),
        "type": "flags" if flags else "enum",
        "entries": entries,
    }


def _member(field: Field) -> dict[str, Any]:
    member: dict[str, Any] = {
        "name": field.name.replace("_", "-"),
        "type": field.ynl_type,
        "doc": field.doc,
    }
    if field.count:
        member["len"] = field.size
    if field.names:
        member["enum"] = kebab(field.names.__name__)
    return member


def _attribute_set(space: AttributeSet) -> dict[str, Any]:
    return {
        "name": space.name,
        "doc": space.doc,
        "attributes": [_attribute(a) for a in space.attributes],
    }


def _attribute(a: Attribute) -> dict[str, Any]:
    out: dict[str, Any] = {"name": a.name, "value": a.number, "doc": a.doc}
    if a.nested:
        out |= {"type": "nest", "nested-attributes": a.nested.name}
    else:
        out["type"] = getattr(a.type, "ynl", "")
    if a.multi:
        out["multi-attr"] = True
    if names := a.enum or a.bits:
        out["enum"] = kebab(names.__name__)
    if a.record:
        out["struct"] = a.record
    checks: dict[str, Any] = {}
    if a.minimum is not None:
        checks["min"] = int(a.minimum)
    if a.maximum is not None:
        checks["max"] = int(a.maximum)
    if a.max_length is not None:
        checks["max-len"] = a.max_length
    if checks:
        out["checks"] = checks
    if a.type is BINARY and not a.record:
        out["display-hint"] = "hex"
    return out


def _operation(op: Operation) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": op.command.name.lower().replace("_", "-"),
        "value": op.command.value,
        "doc": op.command.doc,
    }
    if op.notify:
        return out | {"notify": op.notify.name.lower(), "mcgrp": str(op.group)}
    out["attribute-set"] = family.Top.name
    if op.group:
        return out | {"event": {"attributes": list(op.reply)}, "mcgrp": str(op.group)}
    out["flags"] = ["admin-perm"]
    out["do"] = {
        "request": {"attributes": list(op.request)},
        "reply": {"attributes": list(op.reply)},
    }
    if op.dump:
        out["dump"] = {"reply": {"attributes": list(op.reply)}}
    return out
