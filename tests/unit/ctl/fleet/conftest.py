# SPDX-License-Identifier: GPL-2.0
"""A leaf as an agent's host has it, and a hub: real, on loopback, with nkeys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.ctl.fleet.fleet_host import TwoServers, two_servers
from tests.unit.ctl.fleet.support import FakeHost, Key, Server

LEAF = """
listen: 127.0.0.1:@PORT@
jetstream { store_dir: "@STORE@", max_mem: 64MB, max_file: 1GB }
authorization { users: [ { nkey: %s }, { nkey: %s } ] }
"""


@pytest.fixture
def agent_key(tmp_path: Path) -> Key:
    return Key.make(tmp_path, "agent")


@pytest.fixture
def reader_key(tmp_path: Path) -> Key:
    return Key.make(tmp_path, "reader")


@pytest.fixture
def leaf(tmp_path: Path, agent_key: Key, reader_key: Key) -> Iterator[Server]:
    server = Server(tmp_path / "leaf", LEAF % (agent_key.public, reader_key.public))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[TwoServers]:
    with two_servers(tmp_path) as started:
        yield started


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()
