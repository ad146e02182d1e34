# SPDX-License-Identifier: GPL-2.0
"""Netfilter's own hooks, in any family and network namespace."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

import ipttproto
from ipttctl.errors import UsageError
from ipttctl.escape import word
from ipttctl.events import describe
from ipttctl.events.filter import HookPattern
from ipttctl.events.records import EventRecord
from ipttctl.families import (
    FAMILY_NAMES,
    HOOK_NUMBERS,
    HOOKS,
    IP,
    NfFamily,
    family_name,
    hook_name,
    hook_number,
    parse_priority,
    priority_name,
)
from ipttctl.hooks.hook import (
    Hook,
    HookChoice,
    HookIdentity,
    NamespaceOptions,
    given_namespace,
    namespace_text,
    open_namespace,
)
from ipttctl.numbers import known_member
from ipttctl.options import Option
from ipttctl.system.devices import device_index
from ipttctl.system.namespace_names import NameAt
from ipttctl.system.netns import OWN, Namespace, find, identity, initial_namespace
from ipttctl.system.netns import Identity as NamespaceIdentity
from ipttproto import Gone, HookNumber, Kind, LinkFlag, NfMode, Slot

_PREFIX: Final = "nf"
HOOK_SYNTAX: Final = f"{_PREFIX}:FAMILY/HOOK[@PRIORITY]"
"""The syntax of a netfilter hook; ``NfHook.parse`` reads it and ``str`` writes it."""

_HOOK: Final = re.compile(r"nf:(?P<family>[^/@]+)/(?P<hook>[^/@]+)(?:@(?P<priority>[^@]+))?")
_INGRESS: Final = "ingress"
_ARMED: Final = 4
_GONE: Final[Mapping[int, str]] = {
    Gone.NETNS: "its network namespace is gone",
    Gone.DEVICE: "its device is gone",
}


class Mode(enum.StrEnum):
    """The meaning of a netfilter hook program's return value, as options name it."""

    OBSERVE = "observe"
    FILTER = "filter"


_OF_OPTION: Final = {Mode.OBSERVE: NfMode.OBSERVE, Mode.FILTER: NfMode.FILTER, None: NfMode.OBSERVE}


@dataclass(frozen=True, kw_only=True)
class NfOptions(NamespaceOptions):
    """The options that go with netfilter hooks."""

    device: Annotated[str | None, Option("--device", "nf ingress: the device", metavar="NAME")] = (
        None
    )
    mode: Annotated[
        Mode | None,
        Option(
            "--mode",
            "nf: observe (the default; non-zero is an event) or filter (0 drops the packet)",
        ),
    ] = None
    report_drops: Annotated[bool, Option("--report-drops", "nf, filter: each drop is an event")] = (
        False
    )


@dataclass(frozen=True)
class NfHook(Hook):
    """A netfilter hook.

    ``hook`` is one of the hooks of ``family``: an ``InetHook``, ``ArpHook`` or ``NetdevHook``.
    Links with a lower ``priority`` see a packet first; among equal ones, the link attached last. At
    priority 0 of a bridge's forward hook, a link misses IP packets that br_netfilter hands to
    iptables: hooks after br_netfilter at its priority are skipped (br_nf_hook_thresh).

    ``netns`` is a network namespace: a found one, an identity, a descriptor or a path; None is the
    initial one. Ingress hooks belong to a ``device``, given by name or index. With
    ``NfMode.FILTER`` the program drops packets by returning 0; with ``report_drops`` each drop is
    an event.

    As reported by the module, ``netns`` is an identity, and ``device`` a name with its ``ifindex``.
    ``registered`` says whether the link is at the hook, and ``gone`` why it is not any more.
    """

    family: NfFamily | int
    hook: HookNumber | int
    priority: int = 0
    netns: Namespace | NamespaceIdentity | int | str | Path | None = None
    device: int | str | None = None
    mode: NfMode | int = NfMode.OBSERVE
    report_drops: bool = False
    ifindex: int | None = None
    gone: Gone | int | None = None
    registered: bool = False

    KIND: ClassVar[int] = ipttproto.Hook.NF
    SLOTS: ClassVar[tuple[Slot, ...]] = (Slot.PACKET,)
    EVENTS: ClassVar[frozenset[Kind]] = frozenset({Kind.PACKET, Kind.DISAGREE})
    CAN_DROP: ClassVar[bool] = True
    TITLE: ClassVar[str] = "netfilter hooks"
    SYNTAX: ClassVar[str] = HOOK_SYNTAX
    PATTERNS: ClassVar[tuple[str, ...]] = (_PREFIX, HOOK_SYNTAX)
    OPTIONS: ClassVar[type[HookChoice]] = NfOptions

    @property
    def of_device(self) -> bool:
        """Whether the hook belongs to a single device."""
        return hook_name(self.family, self.hook) == _INGRESS

    @property
    def drops(self) -> bool:
        """Whether the link is in filter mode."""
        return self.mode == NfMode.FILTER

    def __str__(self) -> str:
        return _text(self.family, self.hook, self.priority)

    @classmethod
    def means(cls, text: str) -> bool:
        """Whether the text has the prefix of this kind."""
        return text.partition(":")[0] == _PREFIX

    @classmethod
    def parse(cls, text: str, **options: Any) -> Self:
        """Parse ``nf:FAMILY/HOOK[@PRIORITY]``; ``options`` are further members.

        The default priority is ``filter``.

        Raises:
            UsageError: there is no such family, hook or priority.
        """
        match = _HOOK.fullmatch(text)
        if match is None:
            raise UsageError(f"'{text}' is not a netfilter hook", f"write {HOOK_SYNTAX}")
        family = FAMILY_NAMES.get(match["family"])
        if family is None:
            raise UsageError(
                f"there is no family '{match['family']}'", f"use one of {', '.join(FAMILY_NAMES)}"
            )
        number = hook_number(family, match["hook"])
        if number is None:
            raise UsageError(
                f"family {match['family']} has no hook '{match['hook']}'",
                f"use one of {', '.join(HOOKS[family])}",
            )
        priority = parse_priority(family, match["priority"] or "filter")
        return cls(family, number, priority, **options)

    @classmethod
    def chosen(cls, options: NfOptions) -> Self:
        """Make the hook from options; its namespace is held open from here on."""
        if options.report_drops and options.mode is not Mode.FILTER:
            raise UsageError("--report-drops: without --mode filter nothing is dropped")
        hook = cls.parse(
            options.hook,
            # a path through a process may lead elsewhere by the time we attach
            netns=OWN if options.namespace is None else find(options.namespace),
            device=options.device,
            mode=_OF_OPTION[options.mode],
            report_drops=options.report_drops,
        )
        if hook.of_device and options.device is None:
            raise UsageError(f"{hook} is a hook of a device", "name it: --device NAME")
        if options.device is not None and not hook.of_device:
            raise UsageError(
                f"{hook} is not a hook of a device", "leave --device out; the program can look"
            )
        return hook

    def given(self) -> dict[str, Any]:
        """The options for a file, in which the namespace is named unambiguously."""
        return {
            "hook": str(self),
            "netns": None if self.netns is None else given_namespace(self.netns),
            "device": self.device,
            "mode": describe.member(self.mode) if self.mode != NfMode.OBSERVE else None,
            "report-drops": self.report_drops or None,
        }

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The hook's part of an attach request."""
        attributes: dict[str, Any] = {
            "hook": self.KIND,
            "family": int(self.family),
            "hooknum": self.hook,
            "priority": self.priority,
            "mode": self.mode,
        }
        if self.report_drops:
            attributes["flags"] = int(LinkFlag.REPORT_DROPS)
        namespace = self._open(opened)
        if namespace is not None:
            attributes["netns-fd"] = namespace
        index = self._index(namespace, opened)
        if index:
            attributes["ifindex"] = index
        return attributes

    def identity(self) -> HookIdentity:
        """The hook's numbers, the namespace's cookie among them."""
        with ExitStack() as opened:
            if isinstance(self.netns, NamespaceIdentity):
                cookie, index = self.netns.cookie, self.ifindex or 0
            else:
                namespace = self._open(opened)
                if namespace is None:
                    namespace = opened.enter_context(initial_namespace())
                if namespace is None:
                    namespace = opened.enter_context(Namespace(OWN)).fileno()
                called = str(self.netns or "of process 1")
                cookie = identity(namespace, called).cookie
                index = self._index(namespace, opened)
        where = self.KIND, int(self.family), self.hook, self.priority
        return *where, cookie, index, int(self.mode), self.report_drops

    def release(self) -> None:
        """Release the network namespace."""
        if isinstance(self.netns, Namespace):
            self.netns.close()

    def _open(self, opened: ExitStack) -> int | None:
        """A new descriptor of the namespace; None for the initial one.

        Raises:
            UsageError: the namespace cannot be opened.
        """
        return None if self.netns is None else open_namespace(self.netns, opened)

    def _index(self, namespace: int | None, opened: ExitStack) -> int:
        """The index of the device in ``namespace`` (None: the initial one); 0 without a device."""
        if not isinstance(self.device, str):
            return self.device or 0
        if namespace is None:
            namespace = opened.enter_context(initial_namespace())
        return device_index(self.device, namespace)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Make the hook that a message describes, also for a link that has left it."""
        gone = attributes.get("gone")
        where = attributes.get("family", 0), attributes.get("hooknum", 0)
        return cls(
            known_member(NfFamily, where[0]),
            HOOK_NUMBERS.get(where, where[1]),
            attributes.get("priority", 0),
            NamespaceIdentity(attributes.get("netns", 0), attributes.get("netns-cookie", 0)),
            attributes.get("ifname"),
            known_member(NfMode, attributes.get("mode", NfMode.OBSERVE)),
            bool(attributes.get("flags", 0) & LinkFlag.REPORT_DROPS),
            attributes.get("ifindex"),
            None if gone is None else known_member(Gone, gone),
            bool(attributes.get("armed", 0) & _ARMED),
        )

    def misses(self, link: int) -> Iterator[str]:
        """The reason why the link is at no hook any more."""
        if self.gone is not None:
            why = _GONE.get(self.gone, f"reason {self.gone}")
            yield f"link {link} is at no hook any more: {why}; it stays until it is detached"

    def fields(self, names: NameAt | None) -> Iterator[str]:
        """The namespace, the device and the mode."""
        yield f"netns={self._namespace(names)}"
        if self.ifindex:
            yield f"device={word(str(self.device or ''))}({self.ifindex})"
        yield f"mode={describe.member(self.mode)}"
        if self.report_drops:
            yield "report-drops"
        if self.gone is not None:
            yield f"gone={describe.member(self.gone)}"

    def values(self, names: NameAt | None) -> dict[str, Any]:
        """The keys of JSON for netfilter hooks."""
        told = self.netns if isinstance(self.netns, NamespaceIdentity) else NamespaceIdentity(0, 0)
        return {
            "netns": told.inode,
            "netns_cookie": told.cookie,
            "netns_name": names.name(told.cookie) if names else None,
            "device": self.device,
            "ifindex": self.ifindex,
            "mode": describe.member(self.mode),
            "report_drops": self.report_drops,
            "gone": None if self.gone is None else describe.member(self.gone),
        }

    def rows(self, names: NameAt) -> Iterator[str]:
        """The namespace, the device, the mode, and whether the hook is gone."""
        yield f"netns {self._namespace(names)}"
        if self.device:
            yield f"device {word(str(self.device))}"
        yield describe.member(self.mode)
        if self.gone is not None:
            yield f"GONE: {describe.member(self.gone)}"

    def _namespace(self, names: NameAt | None) -> str:
        if not isinstance(self.netns, NamespaceIdentity):
            return str(self.netns)
        return namespace_text(self.netns, names)

    @classmethod
    def pattern(cls, text: str) -> HookPattern | None:
        """The pattern of a hook, with any priority if none is given; ``nf`` means all hooks."""
        if not cls.means(text):
            return None
        if text == _PREFIX:
            return HookPattern(cls.EVENTS)
        hook = cls.parse(text)
        _, at, _ = text.partition("@")
        return HookPattern(cls.EVENTS, list(hook._event_places()), hook.priority if at else None)

    def _event_places(self) -> Iterator[tuple[int, int]]:
        """The (family, hook) pairs in the events of links at this hook."""
        yield self.family, self.hook
        if self.family == NfFamily.INET and self.of_device:
            yield NfFamily.NETDEV, HOOKS[NfFamily.NETDEV][_INGRESS]
        elif self.family == NfFamily.INET:
            yield from ((family, self.hook) for family in IP.values())

    @classmethod
    def event_values(cls, record: EventRecord) -> dict[str, Any]:
        """The link's priority and verdict, and what a shadow says that disagrees."""
        found: dict[str, Any] = {
            "priority": record.priority,
            "verdict": describe.verdict_name(record.verdict),
        }
        if record.kind == Kind.DISAGREE:
            found["shadow"] = record.rule_handle
            found["shadow_verdict"] = describe.verdict_name(record.verdict_data)
        return found

    @classmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """``nf=[...]``."""
        return (
            f"nf=[hook={cls.heading(record)} in={word(record.in_name)} out={word(record.out_name)}"
            f"{crossed} verdict={' shadow='.join(_verdicts(record))}]"
        )

    @classmethod
    def heading(cls, record: EventRecord) -> str:
        """The hook in its written form."""
        return _text(record.pf, record.hook, record.priority)

    @classmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """The fate of the packet."""
        yield ", shadow ".join(_verdicts(record))


def _verdicts(record: EventRecord) -> Iterator[str]:
    """The link's verdict, and that of a shadow that disagrees."""
    yield describe.verdict_name(record.verdict)
    if record.kind == Kind.DISAGREE:
        yield describe.verdict_name(record.verdict_data)


def _text(family: int, hook: int, priority: int) -> str:
    place = f"{_PREFIX}:{family_name(family)}/{hook_name(family, hook)}"
    return f"{place}@{priority_name(family, priority)}"
