# SPDX-License-Identifier: GPL-2.0
"""Hooks, the places where links are attached: one file per kind, and the list of kinds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from ipttctl.errors import UsageError
from ipttctl.events.filter import HookPattern, ip_hook_pattern
from ipttctl.families import HOOKS, NfFamily
from ipttctl.hooks.chain import ChainHook, ChainOptions
from ipttctl.hooks.hook import Hook, HookChoice, NamespaceOptions, UnknownHook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.nf import NfHook, NfOptions
from ipttctl.hooks.spine import SpineHook, SpineOptions
from ipttctl.hooks.table import TableHook, TableOptions
from ipttctl.options import Option, options_of
from ipttctl.system.inherited import Inherited
from ipttproto import Slot

KINDS: Final[tuple[type[Hook], ...]] = (TableHook, NfHook, ChainHook, SpineHook, JourneyHook)
"""All kinds, in the order in which texts list them."""


_SYNTAXES: Final = ", or ".join(kind.SYNTAX for kind in KINDS)
_WHERE: Final = Option(
    "--hook",
    f"where to attach: {_SYNTAXES}; for example nf:inet4/local_out@raw",
    metavar="HOOK",
)


@dataclass(frozen=True, kw_only=True)
class HookOptions(NfOptions, TableOptions, ChainOptions, SpineOptions):
    """The options that choose a hook of any kind."""

    hook: Annotated[str, _WHERE] = TableHook.SYNTAX


def chosen(options: HookChoice, inherited: Inherited | None = None) -> Hook:
    """Make the hook that options choose.

    With ``inherited``, a path of a namespace may name one of these descriptors of this process,
    and no other.

    Raises:
        UsageError: there is no such hook or namespace, or options exclude each other.
        PrivilegeError: the caller may not open the namespace.
    """
    if inherited and isinstance(options, NamespaceOptions) and options.namespace:
        inherited.check_path(options.namespace)
    kind = next((kind for kind in KINDS if kind.means(options.hook)), None)
    if kind is None:
        known = " or ".join(kind.SYNTAX for kind in KINDS)
        raise UsageError(f"'{options.hook}' is not a hook", f"write {known}")
    own = {given.field for given in options_of(kind.OPTIONS)}
    for given in options_of(type(options)):
        if given.field not in own and getattr(options, given.field):
            others = (kind for kind in KINDS if given.option in _options(kind))
            where = " or ".join(f"--hook {other.SYNTAX}" for other in others)
            raise UsageError(
                f"{given.option.name} does not go with {kind.TITLE}", f"use it with {where}"
            )
    return kind.chosen(options)


def _options(kind: type[Hook]) -> list[object]:
    return [given.option for given in options_of(kind.OPTIONS)]


def from_attributes(attributes: Mapping[str, Any]) -> Hook:
    """The hook that a message about a link describes."""
    number = attributes.get("hook", 0)
    kind = next((kind for kind in KINDS if number == kind.KIND), None)
    return UnknownHook(number) if kind is None else kind.from_attributes(attributes)


def of_event(kind: int) -> type[Hook]:
    """The kind of hook that a kind of event comes from; the first kind if it is unknown."""
    return next((hook for hook in KINDS if kind in hook.EVENTS), KINDS[0])


def event_pattern(text: str) -> HookPattern:
    """The pattern for a text: a hook, a kind of hook, or the name of an IPv4 and IPv6 hook.

    Raises:
        UsageError: the text is none of these.
    """
    patterns = (kind.pattern(text) for kind in KINDS)
    pattern = next(filter(None, patterns), None) or ip_hook_pattern(text)
    if pattern is None:
        known = ", ".join(pattern_words())
        names = ", ".join(HOOKS[NfFamily.IPV4])
        raise UsageError(f"there is no hook '{text}'", f"use {known} or one of {names}")
    return pattern


def pattern_words() -> list[str]:
    """How events of each kind of hook are asked for."""
    return [word for kind in KINDS for word in kind.PATTERNS]


def check_slots(hook: Hook, slots: Collection[Slot]) -> None:
    """Check that a hook has the slots that programs are given for.

    Raises:
        UsageError: it has no such slot.
    """
    wrong = next((slot for slot in slots if slot not in hook.SLOTS), None)
    if wrong is not None:
        names = ", ".join(slot.name.lower() for slot in hook.SLOTS)
        raise UsageError(f"hook {hook} has no slot '{wrong.name.lower()}'", f"it has: {names}")
