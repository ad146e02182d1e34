# SPDX-License-Identifier: GPL-2.0
"""Grants: statements, signed by somebody whom this host trusts, that it may run an object.

A grant names the object by its digest, the hook, the mode, the hosts, and when it expires. The
signature is over the statement's own bytes, so that nothing depends on how they are read.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Collection, Mapping
from typing import Annotated, Final

import msgspec
import nacl.exceptions
import nacl.signing
import nkeys

from ipttctl.errors import IpttctlError
from ipttctl.fleet.config import LinkMode, TrustOptions
from ipttctl.fleet.spellings import DIGEST, PUBLIC_KEY

_CONTEXT: Final = b"ipttctl grant 1\n"
"""Put before the statement, so that no signature for anything else is one of a grant."""

ANY_HOST: Final = "*"
"""The host that stands for all."""

LONGEST: Final = 8192
"""Most characters of a statement."""

_REMEDIES: Final[Mapping[LinkMode, str]] = {
    "observe": "have it signed by a key of trust.keys (--sign), or listed in trust.digests",
    "filter": "have it signed for filter by a key of trust.keys (--sign does, where the file "
    "declares that mode), or listed in trust.filters",
}


class RefusedError(IpttctlError):
    """The host does not do what it was asked for."""


class Statement(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """A permission: object, hook, mode and hosts; ``expires`` is in seconds since 1970.

    One for filter allows observe as well.
    """

    digest: Annotated[str, msgspec.Meta(pattern=DIGEST)]
    hook: Annotated[str, msgspec.Meta(max_length=256)]
    hosts: Annotated[list[Annotated[str, msgspec.Meta(max_length=63)]], msgspec.Meta(min_length=1)]
    expires: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    mode: LinkMode = "observe"


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A statement as JSON text, the key that signed it, and the signature in base64."""

    statement: Annotated[str, msgspec.Meta(max_length=LONGEST)]
    key: Annotated[str, msgspec.Meta(pattern=PUBLIC_KEY)]
    signature: Annotated[str, msgspec.Meta(max_length=128)]


_DECODER: Final = msgspec.json.Decoder(Statement)


def sign(statement: Statement, seed: bytes) -> Grant:
    """Sign a statement with the seed of an nkey of a user."""
    pair = nkeys.from_seed(seed)
    text = msgspec.json.encode(statement).decode()
    signature = base64.b64encode(pair.sign(_CONTEXT + text.encode())).decode()
    return Grant(statement=text, key=bytes(pair.public_key).decode(), signature=signature)


def check(
    digest: str,
    hook: str,
    host: str,
    grants: Collection[Grant],
    trust: TrustOptions,
    *,
    mode: LinkMode = "observe",
    now: float | None = None,
    known: dict[Grant, Statement | str] | None = None,
) -> None:
    """Check that a host may run an object at a hook: it lists the digest, or there is a grant.

    Grants that were read are ``known`` to the next call: signatures take long.

    Raises:
        RefusedError: it may not; the sentence says what is wrong with each grant for the object.
    """
    if digest in trust.filters or (mode == "observe" and digest in trust.digests):
        return
    reasons = []
    known = {} if known is None else known
    if digest in trust.digests:
        reasons.append("it is listed in trust.digests, to observe only")
    for grant in grants:
        if grant not in known:
            known[grant] = _statement(grant, trust.keys)
        found = known[grant]
        if isinstance(found, str):
            reasons.append(found)
            continue
        if found.digest != digest:
            continue
        if reason := _wrong(found, hook, host, mode, time.time() if now is None else now):
            reasons.append(reason)
        else:
            return
    why = "; ".join(dict.fromkeys(reasons)) or "it is not listed here, and no grant is for it"
    raise RefusedError(f"object {digest} at {hook}, mode {mode}: {why}", _REMEDIES[mode])


def _statement(grant: Grant, keys: Collection[str]) -> Statement | str:
    """The statement of a grant, if somebody has signed it who is trusted here; or why not."""
    if grant.key not in keys:
        return f"the key {grant.key} is not trusted here"
    if not _signed(grant):
        return "the signature of a grant is wrong"
    try:
        return _DECODER.decode(grant.statement)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"a grant cannot be read: {error}"


def _wrong(statement: Statement, hook: str, host: str, mode: LinkMode, now: float) -> str:
    """The reason why a statement on an object does not allow this; empty if it does."""
    if statement.hook != hook:
        return f"the grant is for hook {statement.hook}"
    if mode == "filter" and statement.mode != "filter":
        return f"the grant is for mode {statement.mode}"
    if host not in statement.hosts and ANY_HOST not in statement.hosts:
        return f"the grant is not for host {host}"
    if statement.expires <= now:
        return "the grant has expired"
    return ""


def _signed(grant: Grant) -> bool:
    """Whether the key has signed the statement."""
    try:
        # a prefix byte, 32 bytes of key, a checksum of 2
        raw = base64.b32decode(grant.key)[1:33]
        signature = base64.b64decode(grant.signature, validate=True)
        nacl.signing.VerifyKey(raw).verify(_CONTEXT + grant.statement.encode(), signature)
    except (binascii.Error, ValueError, nacl.exceptions.CryptoError):
        return False
    return True
