# SPDX-License-Identifier: GPL-2.0
"""Netfilter's own hooks, of any family and network namespace."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipttctl.errors import UsageError, os_reason
from ipttctl.families import (
    FAMILY_NAMES,
    HOOKS,
    NfFamily,
    family_name,
    hook_name,
    hook_number,
    parse_priority,
    priority_name,
)
from ipttctl.system.netns import Namespace
from ipttproto import Hook, LinkFlag, NfMode

HOOK_SYNTAX: Final = "nf:FAMILY/HOOK[@PRIORITY]"
"""How a netfilter hook is written; ``NfHook.parse`` reads it and ``str`` writes it."""

_HOOK: Final = re.compile(r"nf:(?P<family>[^/@]+)/(?P<hook>[^/@]+)(?:@(?P<priority>[^@]+))?")


@dataclass(frozen=True)
class NfHook:
    """A netfilter hook to attach to.

    ``family`` is one of ``NfFamily`` and ``hook`` the hook's number in it, see ``HOOKS``. Links
    of a lower ``priority`` see a packet first, of equal ones the link that was attached last. At 0
    of a bridge's forward hook, a link misses IP packets that br_netfilter hands to iptables: what
    comes behind that one in its priority is passed over (br_nf_hook_thresh).

    ``netns`` is a network namespace: one that was found, a descriptor or a path; None is the
    initial one. Ingress
    hooks are of a ``device``, by its name there or its index. With ``NfMode.FILTER`` the program
    drops packets by returning 0; ``report_drops`` makes each of them an event.
    """

    family: NfFamily
    hook: int
    priority: int = 0
    netns: Namespace | int | str | Path | None = None
    device: int | str | None = None
    mode: NfMode = NfMode.OBSERVE
    report_drops: bool = False

    @property
    def of_device(self) -> bool:
        """Whether it is a hook of a single device."""
        return hook_name(self.family, self.hook) == "ingress"

    def __str__(self) -> str:
        return hook_text(self.family, self.hook, self.priority)

    @classmethod
    def parse(cls, text: str, **options: Any) -> NfHook:
        """The hook that ``nf:FAMILY/HOOK[@PRIORITY]`` names; ``options`` are further members.

        Without a priority it is the one called ``filter``.

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

    def attributes(self) -> dict[str, Any]:
        """What an attach request says of the place, devices and namespaces aside."""
        attributes: dict[str, Any] = {
            "hook": Hook.NF,
            "family": int(self.family),
            "hooknum": self.hook,
            "priority": self.priority,
            "mode": self.mode,
        }
        if self.report_drops:
            attributes["flags"] = int(LinkFlag.REPORT_DROPS)
        return attributes

    def open_netns(self) -> int | None:
        """A new descriptor of the namespace; None for the initial one.

        Raises:
            UsageError: it cannot be opened.
        """
        if self.netns is None:
            return None
        try:
            if isinstance(self.netns, Namespace):
                return os.dup(self.netns.fileno())
            if isinstance(self.netns, int):
                return os.dup(self.netns)
            return os.open(self.netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(
                f"the network namespace {self.netns} cannot be opened: {os_reason(error)}",
                "see `ip netns`",
            ) from None


def hook_text(family: int, hooknum: int, priority: int) -> str:
    """A hook as ``NfHook.parse`` reads it."""
    place = f"nf:{family_name(family)}/{hook_name(family, hooknum)}"
    return f"{place}@{priority_name(family, priority)}"
