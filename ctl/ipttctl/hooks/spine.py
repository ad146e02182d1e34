# SPDX-License-Identifier: GPL-2.0
"""The spine: every function that a packet meets at netfilter hooks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import ipttproto
from ipttctl.errors import UsageError
from ipttctl.escape import word
from ipttctl.events import describe
from ipttctl.events.filter import HookPattern
from ipttctl.events.records import EventRecord
from ipttctl.families import (
    FAMILY_NAMES,
    HOOKS,
    IP,
    NfFamily,
    family_name,
    hook_name,
    hook_number,
    priority_name,
)
from ipttctl.hooks.hook import HookChoice, HookIdentity, NamespaceOptions
from ipttctl.hooks.walks import WalkHook
from ipttctl.numbers import known_member
from ipttctl.system.netns import Identity as NamespaceIdentity
from ipttctl.system.netns import Namespace
from ipttproto import (
    SPINE_SLOTS,
    EventFlag,
    Gone,
    HookNumber,
    InetHook,
    Kind,
    NetdevHook,
    Slot,
    Verdict,
)

_NAME: Final = "spine"
SPINE_SYNTAX: Final = f"{_NAME}[:FAMILY[/HOOK]]"
"""The syntax of the spine; ``SpineHook.parse`` reads it and ``str`` writes it."""

_HOOK: Final = re.compile(r"spine(:(?P<family>[^/]+)(/(?P<hook>[^/]+))?)?")
_EGRESS: Final = NetdevHook.EGRESS.name.lower()


@dataclass(frozen=True, kw_only=True)
class SpineOptions(NamespaceOptions):
    """The options that go with the spine."""


@dataclass(frozen=True)
class SpineHook(WalkHook):
    """The functions registered at netfilter hooks: of all, of a family, or of a single one.

    These are tables, base chains, connection tracking, NAT, and whatever else is there. ``family``
    is that of packets at the hook: ``NfFamily.INET`` means IPv4 and IPv6. ``hook`` is one of the
    family's. Programs run when a packet comes to a hook that has functions, after each function,
    and when the packet leaves the hook. ``netns`` is a network namespace, as for ``NfHook``, but
    None means all.

    As reported by the module, ``armed`` says whether hooks are watched, and ``gone`` why no packet
    can come any more.
    """

    family: NfFamily | int | None = None
    hook: HookNumber | int | None = None
    netns: Namespace | NamespaceIdentity | int | str | Path | None = None
    armed: bool = False
    gone: Gone | int | None = None

    KIND: ClassVar[int] = ipttproto.Hook.SPINE
    SLOTS: ClassVar[tuple[Slot, ...]] = SPINE_SLOTS
    EVENTS: ClassVar[frozenset[Kind]] = frozenset({Kind.SPINE_FUNCTION, Kind.SPINE_EXIT})
    NEEDS_SPINE_WALK: ClassVar[bool] = True
    ARMED: ClassVar[tuple[int, str]] = (16, _NAME)
    TITLE: ClassVar[str] = "the spine"
    SYNTAX: ClassVar[str] = SPINE_SYNTAX
    PATTERNS: ClassVar[tuple[str, ...]] = (SPINE_SYNTAX,)
    OPTIONS: ClassVar[type[HookChoice]] = SpineOptions

    def __str__(self) -> str:
        if self.family is None:
            return _NAME
        text = f"{_NAME}:{family_name(self.family)}"
        return text if self.hook is None else f"{text}/{hook_name(self._of_hooks, self.hook)}"

    @property
    def _of_hooks(self) -> int:
        """The family whose hooks ``hook`` is one of."""
        return NfFamily.IPV4 if self.family == NfFamily.INET else self.family or 0

    @classmethod
    def means(cls, text: str) -> bool:
        """Whether the text is ``spine``, alone or with a place behind a colon."""
        return text.partition(":")[0] == _NAME

    @classmethod
    def parse(cls, text: str, **options: Any) -> Self:
        """Parse ``spine[:FAMILY[/HOOK]]``; ``options`` are further members.

        Raises:
            UsageError: the text has another form, or there is no such family or hook.
        """
        match = _HOOK.fullmatch(text)
        if match is None:
            raise UsageError(f"'{text}' does not name the spine", f"write {SPINE_SYNTAX}")
        if match["family"] is None:
            return cls(**options)
        family = FAMILY_NAMES.get(match["family"])
        if family is None:
            raise UsageError(
                f"there is no family '{match['family']}'",
                f"use one of {', '.join(map(family_name, NfFamily))}",
            )
        return cls(family, _hook(family, match["hook"]), **options)

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The hook's part of an attach request."""
        attributes: dict[str, Any] = {"hook": self.KIND}
        if self.family is not None:
            attributes["family"] = int(self.family)
        if self.hook is not None:
            attributes["hooknum"] = int(self.hook)
        return attributes | self.request_netns(opened)

    def identity(self) -> HookIdentity:
        """The hook's numbers, and the namespace's cookie."""
        hook = -1 if self.hook is None else int(self.hook)
        return self.KIND, int(self.family or 0), hook, self.cookie()

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Make the hook that a message describes."""
        number = attributes.get("family", 0)
        family = known_member(NfFamily, number) if number else None
        return cls(
            family, _known_hook(family, attributes.get("hooknum")), *cls.reported(attributes)
        )

    def idle(self) -> str:
        """The reason why no packet comes."""
        return "the spine is not watched"

    def short_idle(self) -> str:
        """The same in a table."""
        return "not watched"

    # --- its events -------------------------------------------------------------------------------

    @classmethod
    def pattern(cls, text: str) -> HookPattern | None:
        """The pattern of events at the spine; those of a family or hook only if it is named."""
        if not cls.means(text):
            return None
        hook = cls.parse(text)
        return HookPattern(cls.EVENTS, None if hook.family is None else list(hook._event_places()))

    def _event_places(self) -> Iterator[tuple[int, int]]:
        """The (family, hook) pairs in the events of links at this hook."""
        families = IP.values() if self.family == NfFamily.INET else (self.family or 0,)
        for family in families:
            hooks = _hooks_of(NfFamily(family)).values() if self.hook is None else (self.hook,)
            yield from ((family, hook) for hook in hooks)

    @classmethod
    def event_values(cls, record: EventRecord) -> dict[str, Any]:
        """The function with its verdict, and the packet as the function left it."""
        of_function = record.kind == Kind.SPINE_FUNCTION
        dropped = record.verdict == Verdict.DROP or _freed(record)
        queued = record.verdict == Verdict.QUEUE
        return {
            "traversal": record.traversal,
            "function": describe.text(record.chain) or None if of_function else None,
            "module": describe.text(record.table) or None if of_function else None,
            "function_id": record.rule_handle or None if of_function else None,
            "priority": record.priority if record.flags & EventFlag.PRIORITY else None,
            "function_number": record.rulenum if of_function else None,
            "functions": record.rules,
            "verdict": _verdict_name(record),
            "errno": (
                describe.error_name(record.verdict_data)
                if dropped and record.verdict_data
                else None
            ),
            "queue": record.verdict_data if queued else None,
            "queue_bypass": bool(record.flags & EventFlag.QUEUE_BYPASS) if queued else None,
            "cost_ns": None if of_function else record.cost,
            "skb_priority": record.skb_priority,
            "ct_state": describe.member(record.ct_state) if record.ct_state else None,
            "ct_mark": record.ct_mark if record.ct_state else None,
            "ct_zone": record.ct_zone if record.ct_state else None,
            "ct_id": record.ct_id or None,
            "ttl": record.ttl or None,
            "tos": record.tos if record.ttl else None,
        }

    @classmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """``spine=[...]``."""
        place = f"hook={cls.heading(record)}"
        devices = f"in={word(record.in_name)} out={word(record.out_name)}{crossed}"
        if record.kind == Kind.SPINE_EXIT:
            effort = f"cost={describe.COST} functions={record.rules}"
            return f"spine=[{place} {devices} verdict={_verdict(record)} {effort}]"
        module = f" module={word(record.table)}" if record.table else ""
        return (
            f"spine=[{place} {devices} function={_function(record)}{module} "
            f"number={record.rulenum}{_at(record)} verdict={_verdict(record)}"
            f"{''.join(_changeable(record))}]"
        )

    @classmethod
    def heading(cls, record: EventRecord) -> str:
        """The netfilter hook, with its family."""
        return f"{family_name(record.pf)}/{hook_name(record.pf, record.hook)}"

    @classmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """A function and its verdict, or that over the packet."""
        if record.kind == Kind.SPINE_EXIT:
            yield _verdict(record)
            yield f"cost={describe.cost(record.cost)}"
            yield f"functions={record.rules}"
            return
        yield _function(record)
        yield _verdict(record)
        yield from (text.strip() for text in _changeable(record))


def _hooks_of(family: NfFamily) -> Mapping[str, HookNumber]:
    """The hooks of a family that have functions, by name."""
    if family == NfFamily.INET:
        return HOOKS[NfFamily.IPV4]
    if family == NfFamily.NETDEV:
        return {**HOOKS[family], _EGRESS: NetdevHook.EGRESS}
    if family == NfFamily.BRIDGE:
        # there the bridge calls the functions itself
        return {name: hook for name, hook in HOOKS[family].items() if hook != InetHook.PREROUTING}
    return HOOKS[family]


def _hook(family: NfFamily, name: str | None) -> HookNumber | None:
    """A hook of a family by its name.

    Raises:
        UsageError: the family has no such hook.
    """
    if name is None:
        return None
    hooks = _hooks_of(family)
    # other names of the same hooks too
    number = hook_number(family, name) if name not in hooks else hooks[name]
    if number is None or number not in hooks.values():
        raise UsageError(
            f"the spine has no hook '{name}' of family {family_name(family)}",
            f"use one of {', '.join(hooks)}",
        )
    return number


def _known_hook(family: NfFamily | int | None, number: int | None) -> HookNumber | int | None:
    if number is None or not isinstance(family, NfFamily):
        return number
    return next((hook for hook in _hooks_of(family).values() if hook == number), number)


def _function(record: EventRecord) -> str:
    """The name of the function; ``#`` and its number if it has none."""
    return word(record.chain) if record.chain else f"#{record.rule_handle or '?'}"


def _freed(record: EventRecord) -> bool:
    """Whether the function dropped the packet itself (NF_DROP_REASON)."""
    return record.verdict == Verdict.STOLEN and record.verdict_data != 0


def _verdict_name(record: EventRecord) -> str:
    return describe.verdict_name(Verdict.DROP if _freed(record) else record.verdict)


def _verdict(record: EventRecord) -> str:
    if _freed(record):
        return f"{_verdict_name(record)}({describe.error_name(record.verdict_data)})"
    return describe.verdict(record)


def _at(record: EventRecord) -> str:
    if not record.flags & EventFlag.PRIORITY:
        return ""
    return f" priority={priority_name(record.pf, record.priority)}"


def _changeable(record: EventRecord) -> Iterator[str]:
    """Fields that functions change, besides those that the packet's heading has."""
    if record.ct_state:
        yield f" ct={describe.member(record.ct_state)}"
        if record.ct_mark:
            yield f" ct-mark=0x{record.ct_mark:x}"
        if record.ct_zone:
            yield f" ct-zone={record.ct_zone}"
    if record.mark:
        yield f" mark=0x{record.mark:x}"
    if record.skb_priority:
        yield f" skb-priority={record.skb_priority}"
    if record.ttl:
        yield f" ttl={record.ttl}"
    if record.tos:
        yield f" tos=0x{record.tos:02x}"
