# SPDX-License-Identifier: GPL-2.0
"""The part of a host that an agent is for: all of it, or a network namespace that plays a host.

Agents of several namespaces share one kernel module, in which links have one name each. So links of
such an agent have names there that begin with the namespace, and an owner of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ipttctl.errors import UsageError
from ipttctl.link.model import Link
from ipttctl.link.names import is_name
from ipttctl.state.model import OWNER_LABEL
from ipttproto.family import limit

_OWNER: Final = "fleet"


@dataclass(frozen=True)
class AgentScope:
    """A host, or the network namespace of this name."""

    namespace: str | None = None

    @property
    def owner(self) -> str:
        """The owner of links that others declare: `apply` for others touches no link but these."""
        return f"{_OWNER}.{self.namespace}" if self.namespace else _OWNER

    def inside(self, name: str) -> str:
        """The name in the module of a link that others call by a name."""
        return f"{self.namespace}.{name}" if self.namespace else name

    def outside(self, name: str) -> str:
        """The name that others call a link of the module by."""
        return name.removeprefix(f"{self.namespace}.") if self.namespace else name

    def declares(self, link: Link) -> bool:
        """Whether others declared a link here."""
        return link.labels.get(OWNER_LABEL) == self.owner

    def has(self, link: Link, within: int) -> bool:
        """Whether a link is in the part that the agent is for, or was made there by others.

        ``within`` is the cookie of the namespace, 0 while it is not there: links outlive it.
        """
        if self.namespace is None or self.declares(link):
            return True
        if link.labels.get(OWNER_LABEL, "").startswith(_OWNER):
            # made through another agent
            return False
        there = link.hook.values(None).get("netns_cookie")
        return link.name.startswith(self.inside("")) or bool(within and there == within)

    def state(self, links: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The content of a file that declares links as others name and describe them.

        Raises:
            UsageError: one is in another namespace than the agent's, or its name gets too long.
        """
        return {"links": {self._named(name): self._entry(link) for name, link in links.items()}}

    def _named(self, name: str) -> str:
        named = self.inside(name)
        if self.namespace and not is_name(named):
            raise UsageError(
                f"link {name} would be called {named} in the module, which is no name of a link",
                f"links have names of at most {limit('LINK_NAME')} characters there: letters, "
                "digits, '_', '.' and '-'",
            )
        return named

    def _entry(self, link: Mapping[str, Any]) -> dict[str, Any]:
        if self.namespace is None:
            return dict(link)
        if link.get("netns", self.namespace) != self.namespace:
            raise UsageError(
                f"this agent is for namespace {self.namespace}, not for {link['netns']}",
                "leave netns out",
            )
        return {**link, "netns": self.namespace}
