# SPDX-License-Identifier: GPL-2.0
"""Names on the wire: subjects, the stream of a host, and hosts as tokens of subjects."""

from __future__ import annotations

import re
from typing import Final

_HOST: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")

PREFIX: Final = "ipttctl"
"""The first token of every subject of ours."""

WHO: Final = f"{PREFIX}.who"
"""A message here makes every agent send a heartbeat at once."""

REPLIES: Final = "_INBOX."
"""The beginning of subjects that answers go to; a request may name no other."""

LEAST_SERVER: Final = (2, 10, 25)
"""Least version of the server: the oldest that the faults of the tests were tried with."""


def host_token(name: str) -> str:
    """A host's name as a token of subjects: dots, which separate tokens, become ``_``."""
    token = name.replace(".", "_")
    if not _HOST.fullmatch(token):
        raise ValueError(f"'{name}' is no name of a host: letters, digits, '.', '_' and '-'")
    return token


def is_host(token: str) -> bool:
    """Whether a token is the name of one host."""
    return bool(_HOST.fullmatch(token))


def events(host: str) -> str:
    """The subject of frames of events."""
    return f"{PREFIX}.ev.{host}"


def stories(host: str) -> str:
    """The subject of frames of stories."""
    return f"{PREFIX}.story.{host}"


def heartbeat(host: str) -> str:
    """The subject of heartbeats."""
    return f"{PREFIX}.hb.{host}"


def control(host: str, verb: str = "*") -> str:
    """The subject of commands to a host: each verb has its own, so that rights can differ."""
    return f"{PREFIX}.ctl.{host}.{verb}"


def stream(host: str) -> str:
    """The name of the stream that a host's leaf keeps."""
    return f"{PREFIX}-{host}"
