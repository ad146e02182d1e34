# SPDX-License-Identifier: GPL-2.0
"""Places to attach to: tables, or a netfilter hook."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from ipttctl.errors import UsageError
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.link.wire import initial_namespace
from ipttctl.system.devices import device_index
from ipttctl.system.netns import OWN, Namespace, identity
from ipttproto import TABLE_SLOTS, Hook, Slot


@dataclass(frozen=True)
class Place:
    """A hook as ``Controller.attach`` takes it.

    ``family``, an IP version, and ``count_rules`` are of tables.
    """

    hook: Literal[Hook.TABLE] | NfHook
    family: Literal[4, 6] | None = None
    count_rules: bool = False

    def check(self, slots: Collection[Slot]) -> None:
        """Check that the hook has the slots that programs are given for.

        Raises:
            UsageError: it has not.
        """
        known = (Slot.PACKET,) if isinstance(self.hook, NfHook) else TABLE_SLOTS
        wrong = next((slot for slot in slots if slot not in known), None)
        if wrong is not None:
            where = f"hook {self.hook}" if isinstance(self.hook, NfHook) else "a table"
            names = ", ".join(slot.name.lower() for slot in known)
            raise UsageError(f"{where} has no slot '{wrong.name.lower()}'", f"it has: {names}")

    def attach(self, controller: Controller, programs: ProgramSet, *, persistent: bool) -> Link:
        """Make a link here.

        Raises:
            UsageError: the programs are for slots of another hook.
        """
        self.check(programs.programs.keys())
        return controller.attach(
            programs,
            hook=self.hook,
            family=self.family,
            persistent=persistent,
            count_rules=self.count_rules,
        )

    def release(self) -> None:
        """Let go of the network namespace: held, it would not go though everybody else left it."""
        if isinstance(self.hook, NfHook) and isinstance(self.hook.netns, Namespace):
            self.hook.netns.close()

    def identity(self) -> PlaceIdentity:
        """What tells it from other places, as the kernel counts: links are not moved.

        Raises:
            UsageError: there is no such namespace or device.
            PrivilegeError: the caller may not enter the namespace.
        """
        if not isinstance(self.hook, NfHook):
            return PlaceIdentity(Hook.TABLE, self.family or 0, count_rules=self.count_rules)
        with ExitStack() as stack:
            netns = self.hook.open_netns()
            if netns is None:
                netns = stack.enter_context(initial_namespace())
            else:
                stack.callback(os.close, netns)
            if netns is None:
                netns = stack.enter_context(Namespace(OWN)).fileno()
            device = self.hook.device
            return PlaceIdentity(
                Hook.NF,
                self.hook.family,
                self.hook.hook,
                self.hook.priority,
                identity(netns, str(self.hook.netns or "of process 1")).cookie,
                device_index(device, netns) if isinstance(device, str) else device or 0,
                self.hook.mode,
                self.hook.report_drops,
            )


class PlaceIdentity(NamedTuple):
    """A place by numbers; those behind ``family`` are of netfilter hooks, the last of tables.

    ``netns`` is a cookie.
    """

    hook: int
    family: int
    hooknum: int = 0
    priority: int = 0
    netns: int = 0
    ifindex: int = 0
    mode: int = 0
    report_drops: bool = False
    count_rules: bool = False

    @classmethod
    def of(cls, link: Link) -> Self:
        """Where a link is, or was before it was gone."""
        if link.hook != Hook.NF:
            return cls(link.hook, link.family or 0, count_rules=link.count_rules)
        return cls(
            link.hook,
            link.nf_family or 0,
            link.hooknum or 0,
            link.priority or 0,
            link.netns_cookie or 0,
            link.ifindex or 0,
            link.mode or 0,
            link.report_drops,
        )
