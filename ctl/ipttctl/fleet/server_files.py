# SPDX-License-Identifier: GPL-2.0
"""Files that a configuration names: seeds, certificates and keys, and who may read them."""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import nkeys

from ipttctl.errors import os_reason
from ipttctl.fleet.config import LeafOptions
from ipttctl.fleet.explain import Mistake

_GROUP_AND_OTHERS: Final = 0o077
_LONGEST: Final = 1 << 20

_SEED: Final = re.compile(rb"SU[A-Z2-7]{56}")
"""A user's seed; a file of credentials has other lines, too."""

_PRIVATE: Final = ("credentials", "nkey", "key")
_FILES: Final = (*_PRIVATE, "ca", "certificate")


def seed_in(data: bytes) -> bytes | None:
    """The seed of a user in the bytes of a file, if there is one."""
    found = _SEED.search(data)
    return found[0] if found else None


def mistakes_of_files(server: LeafOptions) -> Iterator[Mistake]:
    """Mistakes in the files by which a server is reached, each with its key.

    Seeds are there, nobody else may read them, and certificates and keys can be loaded.
    """
    found: dict[str, bytes] = {}
    for name in _FILES:
        file = getattr(server, name)
        if file is None:
            continue
        content = read_file(name, file, private=name in _PRIVATE)
        if isinstance(content, Mistake):
            yield content
        else:
            found[name] = content
    if "nkey" in found and not _is_seed(found["nkey"].strip()):
        yield Mistake(
            "nkey", f"{server.nkey} has no seed of a user's nkey", "make one: nk -gen user"
        )
    if "credentials" in found and not _are_credentials(found["credentials"]):
        yield Mistake("credentials", f"{server.credentials} has no JWT and seed of a user")
    if "ca" in found and server.ca:
        yield from mistakes_of_authorities("ca", server.ca)
    if "certificate" in found and "key" in found:
        yield from _mistakes_of_pair(str(server.certificate), str(server.key))


def read_file(name: str, file: str, *, private: bool) -> bytes | Mistake:
    """The content of the file that a key ``name`` names, or what is wrong with it.

    Nobody but its owner may be able to read a ``private`` one.
    """
    try:
        # others block, or have no end
        if not stat.S_ISREG(mode := Path(file).stat().st_mode):
            return Mistake(name, f"{file} is no file")
        with Path(file).open("rb") as opened:
            content = opened.read(_LONGEST)
    except OSError as error:
        return Mistake(name, f"cannot read {file}: {os_reason(error)}")
    if private and mode & _GROUP_AND_OTHERS:
        return Mistake(name, f"others than its owner may read {file}", f"run: chmod 600 {file}")
    return content


def mistakes_of_authorities(name: str, file: str) -> Iterator[Mistake]:
    """A mistake if a file, which a key ``name`` names, has no certificate."""
    try:
        _context().load_verify_locations(file)
    except (ssl.SSLError, OSError):
        yield Mistake(name, f"{file} has no certificate in PEM")


def _mistakes_of_pair(certificate: str, key: str) -> Iterator[Mistake]:
    without = [*mistakes_of_authorities("certificate", certificate)]
    yield from without
    try:
        # nobody is there who could be asked for a password
        _context().load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            yield Mistake("key", f"{key} is not the key of {certificate}")
        elif not without:
            yield Mistake("key", f"{key} has no key in PEM that needs no password")


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _are_credentials(data: bytes) -> bool:
    """Whether bytes have a user's JWT and seed in the lines where the library looks for them."""
    seed = seed_in(data)
    heads = (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED")
    return seed is not None and _is_seed(seed) and all(head in data for head in heads)


def _is_seed(text: bytes) -> bool:
    """Whether bytes are a user's seed, whose checksum the library leaves unchecked."""
    if not _SEED.fullmatch(text):
        return False
    try:
        prefix, raw = nkeys.decode_seed(text)
        return bytes(nkeys.encode_seed(raw, prefix)) == text
    # nkeys has an error for each way in which a seed can be none
    except Exception:
        return False
