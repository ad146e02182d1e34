# SPDX-License-Identifier: GPL-2.0
"""The places where ``trace`` attaches links, and namespaces in which something is not seen."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from ipttctl.cli.printing import note
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.walk import verified
from ipttctl.errors import IpttctlError, ModuleError
from ipttctl.escape import word
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.numbers import shortened
from ipttctl.rules import backends
from ipttctl.system import netns, nf_queues
from ipttproto import Feature

_MOST_ASKED: Final = 64
"""Most namespaces whose rules are looked for at the start."""

_MOST_NAMED: Final = 8
"""Most namespaces without rules that a line names."""


class Backend(enum.StrEnum):
    """Where rules are held."""

    LEGACY = "legacy"
    """The tables of iptables-legacy."""
    NFT = "nft"
    """The chains of nftables, which iptables-nft writes too."""


Family = Literal[4, 6] | None


@dataclass(frozen=True)
class Places:
    """The hooks of a trace, and whether its events make stories."""

    hooks: list[Hook]
    stories: bool

    @property
    def sees_chains(self) -> bool:
        """Whether nftables' chains are among them."""
        return any(isinstance(hook, ChainHook) for hook in self.hooks)


@dataclass(frozen=True)
class PlacesWanted:
    """The options that decide where links are: of a back end, of an IP version, in a namespace."""

    options: StoryOptions
    backend: Backend | None
    family: Family
    namespace: netns.Namespace | None

    def places(self, controller: Controller) -> Places:
        """The places for stories; those for lines if these are wanted or nothing else is possible.

        Raises:
            ModuleError: an option needs stories, and there can be none.
            IpttctlError: only chains are wanted as lines, and the module may not go there.
        """
        if self.options.lines:
            return self._of_lines(controller)
        if why := _why_no_stories(controller):
            return self.instead(controller, why)
        hooks = _story_places(self.backend, self.family, both_ways=self.options.both_ways)
        return Places(list(hooks), stories=True)

    def instead(self, controller: Controller, why: str) -> Places:
        """The places for lines, where there can be no stories; says so.

        Raises:
            ModuleError: an option needs stories.
        """
        if self.options.of_stories_alone:
            raise ModuleError(f"no stories can be told: {why}", "use --lines")
        note(f"no stories can be told, so here are lines: {why}")
        return self._of_lines(controller)

    def _of_lines(self, controller: Controller) -> Places:
        follow = bool(self.options.lines and self.options.follow)
        journey = JourneyHook(both_ways=self.options.both_ways) if follow else None
        hooks = _line_places(controller, self.backend, self.family, self.namespace, journey)
        return Places(list(hooks), stories=False)


def _why_no_stories(controller: Controller) -> str:
    """The reason why packets cannot be followed everywhere; empty if they can.

    Where the module's walks are not verified yet, that is done first.
    """
    if Feature.JOURNEYS not in controller.features:
        return "the module that is loaded cannot follow packets"
    try:
        verified(controller, spine=True)
    except IpttctlError as error:
        return str(error)
    return ""


def _story_places(backend: Backend | None, family: Family, *, both_ways: bool) -> Iterator[Hook]:
    """The hooks for stories: the journey first, then those that are on it.

    They are everywhere, whatever namespace is traced: the entry program chooses packets, which are
    followed into other namespaces then.
    """
    yield JourneyHook(both_ways=both_ways)
    yield SpineHook()
    if backend is not Backend.LEGACY:
        yield ChainHook()
    if backend is not Backend.NFT:
        yield TableHook(family)


def _line_places(
    controller: Controller,
    backend: Backend | None,
    family: Family,
    namespace: netns.Namespace | None,
    journey: JourneyHook | None,
) -> Iterator[Hook]:
    """The hooks for lines; chains only where the module may walk through them.

    Those are chains of a namespace, if one was chosen and packets are not followed into others:
    packets elsewhere pay nothing. Tables have no such place; there the entry program chooses.

    Raises:
        IpttctlError: only chains are wanted, and the module may not.
    """
    if journey is not None:
        yield journey
    if backend is not Backend.NFT:
        yield TableHook(family)
    if backend is Backend.LEGACY:
        return
    try:
        verified(controller, ", or --backend legacy")
    except IpttctlError as error:
        if backend is Backend.NFT:
            raise
        note(f"rules of nftables are not seen: {error}")
    else:
        yield ChainHook(netns=namespace if journey is None else None)


def tell_unseen(namespace: str | None, backend: Backend | None, *, stories: bool) -> None:
    """Say where no back end that is watched holds a rule, and where stories lack hooks.

    That is the namespace chosen. Without one it is ours, and those that have names.
    """
    if namespace is not None:
        with suppress(IpttctlError), netns.find(namespace) as found:
            _tell(_unseen(found, backend, stories=stories), f"network namespace {namespace}")
        return
    with suppress(IpttctlError, OSError), netns.Namespace(netns.OWN) as found:
        _tell(_unseen(found, backend, stories=stories), "this network namespace")
    told: dict[str, list[str]] = {}
    for found in islice(netns.named(), _MOST_ASKED):
        if found.inode != netns.own():
            for sentence in _unseen(found, backend, stories=stories):
                told.setdefault(sentence, []).append(word(found.path.name))
    for sentence, where in told.items():
        few = shortened(where, _MOST_NAMED)
        _tell([sentence], f"network namespace{'s' if len(where) > 1 else ''} {few}")


def _tell(sentences: Iterable[str], where: str) -> None:
    for sentence in sentences:
        note(sentence.format(where=where))


def _unseen(namespace: netns.Namespace, backend: Backend | None, *, stories: bool) -> Iterator[str]:
    """The sentences on a namespace, with ``{where}`` in its place."""
    if sentence := _no_rules(namespace, backend):
        yield sentence
    # it went, or may not be entered
    with suppress(OSError):
        if stories and nf_queues.any_listener(namespace.fileno()):
            yield (
                "a program listens to a queue in {where}: packets are seen there only at hooks "
                "that have functions"
            )


def _no_rules(namespace: netns.Namespace, backend: Backend | None) -> str | None:
    """The sentence on a namespace, with ``{where}`` in its place; None if rules are seen there."""
    try:
        held = backends.holders(namespace.fileno())
    except (IpttctlError, OSError):
        # it went, or may not be asked
        return None
    if backend is None and not held.legacy and not held.nft:
        return "no rules in {where}, of iptables-legacy or nftables"
    if backend is Backend.LEGACY and not held.legacy:
        others = "; nftables holds some" if held.nft else ""
        return f"iptables-legacy holds no rules in {{where}}{others}"
    if backend is Backend.NFT and not held.nft:
        others = "; iptables-legacy holds some" if held.legacy else ""
        return f"nftables holds no rules in {{where}}{others}"
    return None
