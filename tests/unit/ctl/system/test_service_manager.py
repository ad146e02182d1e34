# SPDX-License-Identifier: GPL-2.0
"""Messages to a service manager, over a datagram socket of ours."""

from __future__ import annotations

import os
import re
import secrets
import socket
from pathlib import Path

import pytest

from ipttctl.system.service_manager import ServiceManager


@pytest.mark.parametrize("abstract", [False, True])
def test_messages(abstract: bool, tmp_path: Path) -> None:
    name = f"@ipttctl-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(f"\0{name[1:]}" if abstract else name)
        ours.settimeout(10)
        manager = ServiceManager({"NOTIFY_SOCKET": name})
        manager.tell("READY=1", status="two\nlines ü")
        assert ours.recv(4096).decode() == "READY=1\nSTATUS=two lines ü"
        manager.tell("WATCHDOG=1")
        assert ours.recv(4096) == b"WATCHDOG=1"
        manager.reloading()
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", ours.recv(4096))
    # nobody listens any more
    manager.tell("STOPPING=1")


def test_nobody_to_tell() -> None:
    for environment in ({}, {"WATCHDOG_USEC": "1000"}, {"NOTIFY_SOCKET": "/no/such/socket"}):
        manager = ServiceManager(environment)
        manager.tell("READY=1", status="x")
        assert manager.interval is None


def test_the_watchdog_is_for_one_process() -> None:
    told = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000"}
    assert ServiceManager(told).interval == 3.0
    assert ServiceManager({**told, "WATCHDOG_PID": str(os.getpid())}).interval == 3.0
    assert ServiceManager({**told, "WATCHDOG_PID": "1"}).interval is None
    assert ServiceManager({**told, "WATCHDOG_PID": "x"}).interval is None
    assert ServiceManager({**told, "WATCHDOG_USEC": "x"}).interval is None
