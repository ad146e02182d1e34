# SPDX-License-Identifier: GPL-2.0
"""A network namespace of its own, and programs run in it; messages of nf_tables."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from ipttctl.rules.messages import RawRule
from ipttctl.system.netns import cookies, within

_CLONE_NEWNET = 0x40000000


class Net:
    """A namespace without processes, held by a descriptor."""

    def __init__(self) -> None:
        made: list[int] = []

        def make() -> None:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0:
                made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            pytest.skip("may not make network namespaces")
        self.fd = made[0]
        (cookie,) = cookies([self.fd])
        assert isinstance(cookie, int)
        self.cookie = cookie

    def run(self, *command: str, text: str = "") -> str:
        """Run a program inside; it must succeed."""
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        result = within(
            self.fd,
            lambda: subprocess.run(
                command, input=text, capture_output=True, text=True, check=False
            ),
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def nft(self, commands: str) -> None:
        """Run commands of nft as one transaction."""
        self.run("nft", "-f", "-", text=commands)

    def iptables(self, arguments: str, program: str = "iptables-nft") -> None:
        """Run a command of iptables, without quotes."""
        self.run(program, *arguments.split())

    def close(self) -> None:
        """Let the namespace go."""
        os.close(self.fd)


# --- messages -------------------------------------------------------------------------------------

NLA = struct.Struct("=HH")


def attribute(number: int, data: bytes) -> bytes:
    """An attribute."""
    length = NLA.size + len(data)
    return NLA.pack(length, number) + data + bytes(-length % 4)


def expression(name: str, attributes: Mapping[int, bytes]) -> bytes:
    """An expression in a list of them."""
    data = b"".join(attribute(number, value) for number, value in attributes.items())
    return attribute(1, attribute(1, name.encode() + b"\0") + attribute(2, data))


def u32(value: int) -> bytes:
    """A number in network byte order."""
    return value.to_bytes(4, "big")


def counter(packets: int) -> bytes:
    """A counter that has counted."""
    return expression("counter", {1: bytes(8), 2: packets.to_bytes(8, "big")})


def verdict(code: int, chain: str = "") -> bytes:
    """A verdict of a rule."""
    parts = attribute(1, u32(code & 0xFFFFFFFF))
    if chain:
        parts += attribute(2, chain.encode() + b"\0")
    return expression("immediate", {1: u32(0), 2: attribute(2, parts)})


ACCEPT = verdict(1)
DROP = verdict(0)


def rule(
    handle: int, expressions: bytes = ACCEPT, chain: str = "c", userdata: bytes = b""
) -> RawRule:
    """A rule of table t."""
    return RawRule(1, "t", chain, handle, expressions, userdata)


def message(
    kind: int, family: int, generation: int, body: bytes, *, sequence: int = 0, flags: int = 0
) -> bytes:
    """A message of nf_tables."""
    data = struct.pack("!BBH", family, 0, generation & 0xFFFF) + body
    return struct.pack("=IHHII", 16 + len(data), 10 << 8 | kind, flags, sequence, 0) + data


def done(sequence: int, flags: int = 0) -> bytes:
    """The end of a dump."""
    return struct.pack("=IHHIIi", 20, 3, flags, sequence, 0, 0)


def generation_message(number: int, *, sequence: int = 0) -> bytes:
    """A generation."""
    body = attribute(1, u32(number)) + attribute(2, u32(77)) + attribute(3, b"nft\0")
    return message(15, 0, number, body, sequence=sequence)


def rule_message(
    kind: int, raw: RawRule, generation: int, *, sequence: int = 0, flags: int = 0
) -> bytes:
    """A rule that a message adds (6) or deletes (8)."""
    body = (
        attribute(1, raw.table.encode() + b"\0")
        + attribute(2, raw.chain.encode() + b"\0")
        + attribute(3, raw.handle.to_bytes(8, "big"))
        + attribute(4, raw.expressions)
    )
    return message(kind, raw.family, generation, body, sequence=sequence, flags=flags)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def script(directory: Path, name: str, body: str) -> Path:
    """A Python program; its file."""
    path = directory / name
    path.write_text(f"#!{sys.executable} -IS\n{body}\n")
    path.chmod(0o755)
    return path
