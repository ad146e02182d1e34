# SPDX-License-Identifier: GPL-2.0
"""The example configurations of leaf and hub, as servers with TLS and nkeys.

agent --- leaf (domain web1) ---TLS--- hub (domain hub) --- viewer, tracer, operator
"""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.api import ExternalStream, StreamConfig, StreamSource

from ipttctl.fleet.connection import own_inbox
from tests.unit.ctl.fleet.support import (
    Key,
    Server,
    free_port,
)

EXAMPLES = Path(__file__).parents[4] / "docs/examples/fleet"


ROLES = ("AGENT_WEB1", "LEAF_WEB1", "VIEWER", "TRACER", "OPERATOR")


def certificates(directory: Path) -> None:
    """An authority, and a certificate of it for the hub."""
    ca = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    signed = ["-CA", "ca.pem", "-CAkey", "ca-key.pem"]
    for arguments in (
        [*ca, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=authority"],
        [*ca, "-keyout", "hub-key.pem", "-out", "hub.pem", "-subj", "/CN=hub", *name, *signed],
    ):
        command = ["openssl", "req", *arguments]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)


async def ignore(_: Exception) -> None:
    """Take no note of refusals: tests look at what is refused themselves."""


@dataclass
class Fleet:
    """A leaf and a hub, and a key for each role."""

    leaf: Server
    hub: Server
    keys: dict[str, Key]
    authority: Path

    async def user(self, role: str) -> Client:
        """A connection to the hub."""
        client = Client()
        await client.connect(
            self.hub.url.replace("nats://", "tls://"),
            nkeys_seed=str(self.keys[role].seed),
            inbox_prefix=own_inbox(str(self.keys[role].seed)),
            tls=ssl.create_default_context(cafile=str(self.authority)),
            allow_reconnect=False,
            error_cb=ignore,
        )
        return client

    async def source(self) -> None:
        """Have the hub keep what the leaf's stream has."""
        operator = await self.user("OPERATOR")
        external = ExternalStream(api="$JS.web1.API")
        source = StreamSource(name="ipttctl-web1", external=external)
        await operator.jetstream().add_stream(StreamConfig(name="ipttctl", sources=[source]))
        await operator.close()


def example(name: str, keys: dict[str, Key], tmp_path: Path, leaf_port: int) -> str:
    """An example with this test's keys, files and ports."""
    text = (EXAMPLES / name).read_text()
    for role, key in keys.items():
        text = re.sub(rf"\b{role}\b", key.public, text)
    text = text.replace("/etc/nats", str(tmp_path)).replace("/var/lib/nats/jetstream", "@STORE@")
    text = text.replace("hub.example.org:7422", f"127.0.0.1:{leaf_port}")
    text = text.replace("0.0.0.0:7422", f"127.0.0.1:{leaf_port}")
    text = text.replace("reconnect: 2s", "reconnect: 500ms")
    return re.sub(r"listen: [0-9.]+:4222", "listen: 127.0.0.1:@PORT@", text)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    yield from started(tmp_path)


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet whose hub was taken over: there are no limits to what its users may do."""
    yield from started(tmp_path, without_rights=True)


def started(tmp_path: Path, *, without_rights: bool = False) -> Iterator[Fleet]:
    certificates(tmp_path)
    keys = {role: Key.make(tmp_path, role.lower()) for role in ROLES}
    port = free_port()
    text = example("hub.conf", keys, tmp_path, port)
    if without_rights:
        users = ", ".join(f"{{ nkey: {keys[role].public} }}" for role in ("LEAF_WEB1", "OPERATOR"))
        accounts = f"accounts {{ FLEET {{ jetstream: enabled, users = [ {users} ] }} }}"
        text = text[: text.index("accounts {")] + accounts
    hub = Server(tmp_path / "hub", text).start()
    (tmp_path / "leaf").mkdir()
    seed = keys["LEAF_WEB1"].seed.read_text()
    (tmp_path / "leaf/leaf-key.conf").write_text(f"nkey: {seed}\n")
    leaf = Server(tmp_path / "leaf", example("leaf.conf", keys, tmp_path, port)).start()
    yield Fleet(leaf, hub, keys, tmp_path / "ca.pem")
    leaf.kill()
    hub.kill()
