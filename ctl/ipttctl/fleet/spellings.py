# SPDX-License-Identifier: GPL-2.0
"""Spellings of what configurations and links have in them, each with a sentence for what is not so.

msgspec tells of a text only that it does not match a pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TIME: Final = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h)\Z"
PATH: Final = "^/"
LABEL: Final = r"^[A-Za-z0-9_./-]{1,63}\Z"
HOST: Final = r"^[A-Za-z0-9_.-]{1,63}\Z"
NAME: Final = r"^[A-Za-z0-9_-]{1,63}\Z"
WATCH: Final = r"^[A-Za-z0-9_-]{1,32}\Z"
SERVER: Final = r"^(nats|tls)://[^@/ ]+\Z"
COLLECTOR: Final = r"^https?://[^@ ?#]+\Z"
ADDRESS: Final = r"^[0-9A-Fa-f:.]+\Z"
FUNCTION: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,62}\Z"
HOOK: Final = r"^[A-Za-z0-9_:/@.*+-]{1,255}\Z"

NAMESPACE: Final = r"^[A-Za-z_][A-Za-z0-9_-]{0,62}\Z"
"""A name: neither a number, which is an inode or a process, nor a path."""

DIGEST: Final = r"^sha256:[0-9a-f]{64}\Z"
"""The digest of a compiled object."""

PUBLIC_KEY: Final = r"^U[A-Z2-7]{55}\Z"
"""A public key that signs, as ``nk -gen user -pubout`` prints it."""

SENTENCES: Final[Mapping[str, str]] = {
    TIME: "this is no time: write it as 500ms, 30s, 2m or 24h",
    PATH: "this is no whole path: it begins with /",
    LABEL: "this is no label: write letters, digits, '_', '.', '/' and '-', 63 at most",
    HOST: "this is no name of a host: write letters, digits, '_', '.' and '-', 63 at most",
    NAME: "this is no name: write letters, digits, '_' and '-', 63 at most",
    WATCH: "this is no name of a watch: write letters, digits, '_' and '-', 32 at most",
    SERVER: "this is no server: write nats://HOST:PORT or tls://HOST:PORT, and no user",
    COLLECTOR: "this is no collector: write http://HOST:PORT or https://HOST:PORT",
    ADDRESS: "this is no IP address",
    FUNCTION: "this is no name of a function: write letters, digits and '_', 63 at most",
    HOOK: "this is no hook: see `ipttctl attach --help`",
    NAMESPACE: "this is no name of a network namespace: write letters, digits, '_' and '-', "
    "63 at most, and no digit first",
    DIGEST: "this is no digest: write sha256: and the 64 hex digits that sha256sum prints",
    PUBLIC_KEY: "this is no public key of a user: write the 56 characters that nk -pubout prints",
}
"""A sentence by pattern."""
