# SPDX-License-Identifier: GPL-2.0
"""Where to attach: ``--hook`` and what goes with it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import typer

from ipttctl.errors import UsageError
from ipttctl.hooks.nf import HOOK_SYNTAX, NfHook
from ipttctl.link.places import Place
from ipttctl.system import netns
from ipttproto import Hook, NfMode

_TABLE: Final = "table"


class Family(enum.StrEnum):
    """IP versions."""

    V4 = "4"
    V6 = "6"


class Mode(enum.StrEnum):
    """What the return value of a program at a netfilter hook means."""

    OBSERVE = "observe"
    FILTER = "filter"


@dataclass(frozen=True, kw_only=True)
class HookOptions:
    """The options that say where to attach (see ``ipttctl.cli.groups``)."""

    hook: Annotated[
        str,
        typer.Option(
            "--hook",
            metavar="HOOK",
            help=f"where to attach: {_TABLE}, or {HOOK_SYNTAX} such as nf:inet4/local_out@raw",
        ),
    ] = _TABLE
    family: Annotated[
        Family | None, typer.Option("--family", help="tables: this IP version only")
    ] = None
    namespace: Annotated[
        str | None,
        typer.Option(
            "--netns",
            metavar="NETNS",
            help="nf: inode number, name or path of the network namespace; without it our own",
        ),
    ] = None
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="nf ingress: the device")
    ] = None
    mode: Annotated[
        Mode | None,
        typer.Option(
            "--mode",
            help="nf: observe (the default; non-zero is an event) or filter (0 drops the packet)",
        ),
    ] = None
    report_drops: Annotated[
        bool, typer.Option("--report-drops", help="nf, filter: each drop is an event")
    ] = False
    count_rules: Annotated[
        bool,
        typer.Option(
            "--count-rules", help="tables: exit events count rules, without a rule program too"
        ),
    ] = False

    def place(self) -> Place:
        """What they say.

        Raises:
            UsageError: there is no such hook or namespace, or options that do not go together.
            PrivilegeError: the caller may not open the namespace.
        """
        if self.hook == _TABLE:
            for option, value in (
                ("--netns", self.namespace),
                ("--device", self.device),
                ("--mode", self.mode),
                ("--report-drops", self.report_drops),
            ):
                if value:
                    raise UsageError(
                        f"{option} does not go with tables", f"use it with --hook {HOOK_SYNTAX}"
                    )
            version = None if self.family is None else _VERSIONS[self.family]
            return Place(Hook.TABLE, version, self.count_rules)
        if self.family:
            raise UsageError("--family is for tables", f"the family of a hook is in {HOOK_SYNTAX}")
        if self.count_rules:
            raise UsageError("--count-rules is for tables", "netfilter hooks have no rules")
        mode = NfMode.FILTER if self.mode is Mode.FILTER else NfMode.OBSERVE
        if self.report_drops and mode is not NfMode.FILTER:
            raise UsageError("--report-drops: without --mode filter nothing is dropped")
        hook = NfHook.parse(
            self.hook,
            # held from here on: a path through a process may lead elsewhere before we attach
            netns=netns.OWN if self.namespace is None else netns.find(self.namespace),
            device=self.device,
            mode=mode,
            report_drops=self.report_drops,
        )
        if hook.of_device and self.device is None:
            raise UsageError(f"{hook} is a hook of a device", "name it: --device NAME")
        if self.device is not None and not hook.of_device:
            raise UsageError(
                f"{hook} is not a hook of a device", "leave --device out; the program can look"
            )
        return Place(hook)


_VERSIONS: Final[dict[Family, Literal[4, 6]]] = {Family.V4: 4, Family.V6: 6}
