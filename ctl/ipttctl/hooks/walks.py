# SPDX-License-Identifier: GPL-2.0
"""The common part of hooks whose packets the module walks with: chains, and the spine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from ipttctl.events import describe
from ipttctl.hooks.hook import (
    Hook,
    NamespaceOptions,
    given_namespace,
    namespace_text,
    open_namespace,
)
from ipttctl.numbers import known_member
from ipttctl.system.namespace_names import NameAt
from ipttctl.system.netns import OWN, Namespace, find, identity
from ipttctl.system.netns import Identity as NamespaceIdentity
from ipttproto import Gone

_GONE: Final[Mapping[int, str]] = {Gone.NETNS: "its network namespace is gone"}


class WalkHook(Hook):
    """A hook in one network namespace or in all, whose links take the module's walks.

    ``netns`` is a network namespace, as for ``NfHook``, but None means all. As reported by the
    module, ``armed`` says whether packets are watched, and ``gone`` why none can come any more.
    """

    netns: Namespace | NamespaceIdentity | int | str | Path | None
    armed: bool

    NEEDS_WALK: ClassVar[bool] = True
    ARMED: ClassVar[tuple[int, str]]
    """The bit by which the module says that the hook is watched, and the word for it."""

    @abstractmethod
    def idle(self) -> str:
        """A sentence that says why the hook is not watched."""

    # --- as requested -----------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def parse(cls, text: str, **options: Any) -> Self:
        """Parse the hook's written form; ``options`` are further members.

        Raises:
            UsageError: the text has another form, or names something that cannot be there.
        """

    @classmethod
    def chosen(cls, options: NamespaceOptions) -> Self:
        """Make the hook from options; its namespace is held open from here on."""
        # a path through a process may lead elsewhere by the time we attach
        return cls.parse(
            options.hook, netns=None if options.namespace is None else find(options.namespace)
        )

    def given(self) -> dict[str, Any]:
        """The options for a file, in which the namespace is named unambiguously."""
        # without one, it would be at all namespaces: our own has to be there
        netns = None if self.netns is None else given_namespace(self.netns) or str(OWN)
        return {"hook": str(self), "netns": netns}

    def request_netns(self, opened: ExitStack) -> dict[str, Any]:
        """The namespace's part of an attach request."""
        if self.netns is None:
            return {}
        return {"netns-fd": open_namespace(self.netns, opened)}

    def cookie(self) -> int:
        """The namespace's cookie; 0 for all."""
        if self.netns is None:
            return 0
        if isinstance(self.netns, NamespaceIdentity):
            return self.netns.cookie
        with ExitStack() as opened:
            return identity(open_namespace(self.netns, opened), str(self.netns)).cookie

    def release(self) -> None:
        """Release the network namespace."""
        if isinstance(self.netns, Namespace):
            self.netns.close()

    # --- as reported by the module ----------------------------------------------------------------

    @classmethod
    def reported(
        cls, attributes: Mapping[str, Any]
    ) -> tuple[NamespaceIdentity | None, bool, Gone | int | None]:
        """``netns``, ``armed`` and ``gone`` of a message about a link."""
        cookie, gone = attributes.get("netns-cookie", 0), attributes.get("gone")
        return (
            NamespaceIdentity(attributes.get("netns", 0), cookie) if cookie else None,
            bool(attributes.get("armed", 0) & cls.ARMED[0]),
            None if gone is None else known_member(Gone, gone),
        )

    def misses(self, link: int) -> Iterator[str]:
        """The reason why no packet comes."""
        if self.gone is not None:
            why = _GONE.get(self.gone, f"reason {self.gone}")
            yield f"link {link} sees no packets any more: {why}; it stays until it is detached"
        elif not self.armed:
            yield self.idle()

    # --- in print ---------------------------------------------------------------------------------

    def fields(self, names: NameAt | None) -> Iterator[str]:
        """The namespace."""
        yield f"netns={self._namespace(names)}"

    def state_fields(self) -> Iterator[str]:
        """Whether the hook is watched."""
        yield f"armed={self.ARMED[1] if self.armed else 'none'}"
        if self.gone is not None:
            yield f"gone={describe.member(self.gone)}"

    def values(self, names: NameAt | None) -> dict[str, Any]:
        """The keys of JSON for the namespace."""
        told = self.netns if isinstance(self.netns, NamespaceIdentity) else None
        return {
            "netns": told.inode if told else None,
            "netns_cookie": told.cookie if told else None,
            "netns_name": names.name(told.cookie) if names and told else None,
            "gone": None if self.gone is None else describe.member(self.gone),
            "armed": [self.ARMED[1]] if self.armed else [],
        }

    def rows(self, names: NameAt) -> Iterator[str]:
        """The namespace, and whether the hook is not watched."""
        yield f"netns {self._namespace(names)}"
        if self.gone is not None:
            yield f"GONE: {describe.member(self.gone)}"
        elif not self.armed:
            yield self.short_idle()

    @abstractmethod
    def short_idle(self) -> str:
        """Some words that say why the hook is not watched."""

    def _namespace(self, names: NameAt | None) -> str:
        if self.netns is None:
            return "all"
        if not isinstance(self.netns, NamespaceIdentity):
            return str(self.netns)
        return namespace_text(self.netns, names)
