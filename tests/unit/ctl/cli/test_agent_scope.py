# SPDX-License-Identifier: GPL-2.0
"""Names and owners of links of agents that share a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli.agent_host import LocalHost
from ipttctl.cli.agent_scope import AgentScope
from ipttctl.errors import UsageError
from ipttctl.link.model import Link
from ipttctl.state.model import OWNER_LABEL
from ipttctl.system import netns
from ipttproto import Command
from ipttproto.family import limit
from tests.unit.ctl.support import FakeModule, chain_link, link, nf_link

LINK = {"hook": "nf:inet4/input", "object": {"packet": "see.o:see"}}


def owned(owner: str) -> Link:
    """A link with this owner."""
    return replace(Link.from_attributes(link()), labels={OWNER_LABEL: owner})


def test_an_agent_of_a_host_takes_links_as_they_are() -> None:
    scope = AgentScope()
    assert scope.state({"see": {**LINK, "netns": "web"}}) == {
        "links": {"see": {**LINK, "netns": "web"}}
    }
    assert (scope.inside("see"), scope.outside("web.see")) == ("see", "web.see")
    assert scope.declares(owned("fleet"))
    assert not scope.declares(owned("fleet.web"))


def test_labels_are_read_as_they_were_asked_for(tmp_path: Path) -> None:
    labels = {"odd": '\U0001f600 a\u2028b\x85c\x7f\n\ufeff\\ud83d"\u20ac', "plain": "10:20"}

    def read(label: dict[str, str]) -> Any:
        [found] = LocalHost()._state({"links": {"see": {**LINK, "label": label}}}, tmp_path).links
        return found.labels

    assert read(labels) == labels
    for bad in ("\0", "\ud83d"):
        with pytest.raises(UsageError, match="a NUL or half a character"):
            read({"label": bad})


def test_links_of_a_namespace_are_there_under_its_name() -> None:
    scope = AgentScope("web")
    expected = {"links": {"web.see": {**LINK, "netns": "web"}}}
    assert scope.state({"see": LINK}) == scope.state({"see": {**LINK, "netns": "web"}}) == expected
    assert scope.outside(scope.inside("see")) == "see"
    assert scope.declares(owned("fleet.web"))
    # neither the host's own nor those of another namespace
    for other in ("fleet", "fleet.db", "web"):
        assert not scope.declares(owned(other))


def test_a_link_of_another_namespace_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^this agent is for namespace web, not for db"):
        AgentScope("web").state({"see": {**LINK, "netns": "db"}})


def test_a_name_that_gets_too_long_is_refused() -> None:
    long = "n" * (limit("LINK_NAME") - len("web.") + 1)
    assert AgentScope("web").state({long[1:]: LINK})
    with pytest.raises(
        UsageError, match=rf"^link {long} would be called web\.{long} in the module"
    ):
        AgentScope("web").state({long: LINK})


@pytest.mark.usefixtures("answering")
def test_links_of_other_namespaces_are_neither_listed_nor_detached(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number either: all agents of a module have the same numbers."""
    owner = {"key": OWNER_LABEL, "value": "fleet.web"}
    there = {
        3: link(),
        4: nf_link(**{"netns-cookie": 5}),
        5: chain_link(**{"netns-cookie": 6}),
        # its namespace is gone
        6: nf_link(link=6, labels={"label": [owner]}, **{"netns-cookie": 0}),
        7: nf_link(link=7, name="web.see", **{"netns-cookie": 0}),
    }

    def get(_: Command, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [there[asked["link"]]] if "link" in asked else list(there.values())

    module.handlers[Command.GET] = get
    monkeypatch.setattr(netns, "resolve", lambda _: netns.Identity(1, 5))
    web = LocalHost("web")
    assert [one["link"] for one in web.links()] == [4, 6, 7]
    for number in (3, 5):
        with pytest.raises(UsageError, match=rf"^link {number} is not in namespace web"):
            web.detach(number, "a test")
    assert module.requested(Command.DETACH) == []
    for number in (4, 6, 7):
        web.detach(number, "a test")
    assert [one["link"] for one in module.requested(Command.DETACH)] == [4, 6, 7]
    assert [one["link"] for one in LocalHost().links()] == list(there)

    def gone(_: str) -> netns.Identity:
        raise UsageError("there is no network namespace web")

    monkeypatch.setattr(netns, "resolve", gone)
    assert [one["link"] for one in web.links()] == [6, 7]
