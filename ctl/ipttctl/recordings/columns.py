# SPDX-License-Identifier: GPL-2.0
"""The tables that are made of recordings: their columns, with types and meanings.

Times are UTC. A number of a packet, of a story or of a namespace means something together with host
and run only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SCHEMA: Final = 1
"""Version of the tables. Columns may be added without another one."""

TIME: Final = "timestamp[ns]"
TEXT: Final = "string"
NUMBER: Final = "int64"
UNSIGNED: Final = "uint64"
BOOL: Final = "bool"
BYTES: Final = "binary"


class Column(NamedTuple):
    """A column; ``type`` is Arrow's name of its type."""

    name: str
    type: str
    meaning: str


def _namespace(which: str) -> tuple[Column, ...]:
    """The columns of a network namespace."""
    return (
        Column("netns", NUMBER, f"inode number of the network namespace {which}"),
        Column("netns_cookie", UNSIGNED, "its cookie, which no other namespace gets"),
        Column("netns_name", TEXT, "its name at that time, null for none"),
    )


WHERE: Final = (
    Column("host", TEXT, "name of the host that recorded"),
    Column("boot_id", TEXT, "id of the boot of its kernel"),
    Column("run", TEXT, "id of the process that recorded"),
)
"""The columns that each table has first."""

_ENDS: Final = (
    Column("family", NUMBER, "4 or 6, null for what is not IP"),
    Column("protocol", TEXT, "transport protocol, such as tcp"),
    Column("source", TEXT, "source address"),
    Column("source_port", NUMBER, "source port, null without"),
    Column("destination", TEXT, "destination address"),
    Column("destination_port", NUMBER, "destination port, null without"),
)
_RULE: Final = (
    Column("backend", TEXT, "legacy or nft"),
    Column("table_family", TEXT, "family of the table, of nft"),
    Column("table", TEXT, "name of the table"),
    Column("chain", TEXT, "name of the chain"),
    Column("rulenum", NUMBER, "number of the rule in its chain, from 1"),
    Column("rule_handle", UNSIGNED, "handle of the rule, of nft"),
    Column("rule", TEXT, "the rule as its owner writes it, as it was then"),
    Column("owner", TEXT, "program that wrote the rule, null if it is not known"),
    Column("about", TEXT, "what the rule is about, as its owner says"),
)
_SENDER: Final = (
    Column("pid", NUMBER, "process that sent the packet, null if none of this host did"),
    Column("comm", TEXT, "its name"),
    Column("unit", TEXT, "its systemd unit"),
    Column("container", TEXT, "name, or else id, of its container"),
    Column("pod", TEXT, "its Kubernetes pod, as NAMESPACE/NAME"),
)

TABLES: Final[dict[str, tuple[Column, ...]]] = {
    "events": (
        *WHERE,
        Column("time", TIME, "time of the event"),
        Column("monotonic_ns", NUMBER, "the same on the host's CLOCK_MONOTONIC, in ns"),
        Column("cpu", NUMBER, "CPU of the event"),
        Column("sequence", UNSIGNED, "its number on that CPU; gaps are lost events"),
        Column("link", NUMBER, "id of the link that reported it"),
        Column("kind", TEXT, "kind of the event, as in docs/json.md"),
        Column("packet", UNSIGNED, "number of the packet, null if it is not followed"),
        *_namespace("of the event"),
        Column("in_device", TEXT, "device by which the packet came in"),
        Column("out_device", TEXT, "device by which it will leave"),
        Column("hook", TEXT, "hook, such as PREROUTING"),
        Column("hook_family", TEXT, "family of the hook, such as inet4"),
        *_ENDS,
        Column("length", NUMBER, "length of the packet in bytes, from the network header on"),
        Column("mark", NUMBER, "mark of the packet"),
        *_RULE[1:6],
        Column("function", TEXT, "function of a hook or of the kernel"),
        Column("module", TEXT, "its module, null for the kernel itself"),
        Column("verdict", TEXT, "verdict, null for kinds that have none"),
        Column("cost_ns", NUMBER, "time that the rules or the function took, in ns"),
        Column("pid", NUMBER, "process that sent the packet, null if none of this host did"),
        Column("comm", TEXT, "its name"),
        Column("payload", BYTES, "bytes that a program added to the event"),
    ),
    "stories": (
        *WHERE,
        Column("story", NUMBER, "number of the story in the recording"),
        Column("branch_of", NUMBER, "story of the packet that this one is a copy or part of"),
        Column("packet", UNSIGNED, "number of the packet"),
        Column("time", TIME, "time of the first event"),
        Column("duration_ns", NUMBER, "time until the end, in ns"),
        *_namespace("in which the story began"),
        Column("in_device", TEXT, "device by which the packet came in"),
        *_ENDS,
        Column("length", NUMBER, "length of the packet in bytes, from the network header on"),
        *_SENDER,
        Column("end", TEXT, "kind of the end: delivered, left, dropped_by_rule..."),
        Column("dropped", BOOL, "whether the packet was dropped"),
        Column("end_text", TEXT, "the end in words"),
        Column("end_hook", TEXT, "last hook of the packet"),
        Column("out_device", TEXT, "device by which it left"),
        Column("receiver", TEXT, "socket that took it, and the process that holds it"),
        Column("steps", NUMBER, "number of steps"),
    ),
    "steps": (
        *WHERE,
        Column("story", NUMBER, "story of the step"),
        Column("step", NUMBER, "number of the step in its story, from 0"),
        Column(
            "kind",
            TEXT,
            "received, sent, hook, function, table, rule, route, socket, encapsulated, "
            "decapsulated or branch",
        ),
        Column("after_ns", NUMBER, "time since the story began, in ns; null if it is not known"),
        *_namespace("of the step"),
        Column("device", TEXT, "device of the step"),
        Column("hook", TEXT, "hook, such as PREROUTING"),
        Column("function", TEXT, "function of the hook"),
        Column("module", TEXT, "its module, null for the kernel itself"),
        *_RULE,
        Column("verdict", TEXT, "verdict or decision, null for steps that have none"),
        Column("changes", TEXT, "changes of the packet, as FIELD BEFORE > AFTER, with semicolons"),
    ),
    "drops": (
        *WHERE,
        Column("story", NUMBER, "story of the packet"),
        Column("time", TIME, "time of the drop"),
        *_namespace("in which it was dropped"),
        Column("in_device", TEXT, "device by which the packet came in"),
        *_ENDS,
        Column("length", NUMBER, "length of the packet in bytes, from the network header on"),
        *_SENDER,
        Column("cause", TEXT, "rule, function or kernel"),
        Column("text", TEXT, "the drop in words"),
        Column("rejected", BOOL, "whether the sender was told"),
        Column("hook", TEXT, "last hook of the packet"),
        *_RULE,
        Column("function", TEXT, "function that dropped it: of the hook, or of the kernel"),
        Column("module", TEXT, "its module, null for the kernel itself"),
        Column("drop_reason", TEXT, "the kernel's reason, such as NO_SOCKET"),
    ),
    "links": (
        *WHERE,
        Column("link", NUMBER, "id of the link"),
        Column("name", TEXT, "its name, null for none"),
        Column("hook", TEXT, "its hook"),
        Column("generation", NUMBER, "generation of its programs when recording began"),
    ),
    "hosts": (
        *WHERE,
        Column("module_version", TEXT, "version of the kernel module"),
        Column("fingerprint", TEXT, "fingerprint of the protocol"),
        Column("began", TIME, "time of the first frame"),
        Column("ended", TIME, "time of the last frame"),
        Column("finished", BOOL, "whether the recording has its end"),
        Column("events", NUMBER, "events in the recording"),
        Column("stories", NUMBER, "stories in the recording, without branches"),
        Column("lost", NUMBER, "events that were lost before they were written"),
        Column("thrown_away", NUMBER, "events that the bound of the recording threw away"),
        Column("damaged", NUMBER, "damaged frames that were passed over"),
    ),
}
"""The columns of each table."""
