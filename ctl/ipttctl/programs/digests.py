# SPDX-License-Identifier: GPL-2.0
"""Digests of programs: what a slot's program has to be, whatever its source says by then.

``sha256:HEX`` is that of a file, as ``sha256sum`` prints it; ``tag:HEX`` is the tag that the kernel
computes of a loaded program's instructions (bpftool prog), which covers neither maps nor constants.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ipttctl.bpf import syscalls
from ipttctl.errors import ProgramError, UsageError, os_reason
from ipttproto import Slot

_OF_FILE: Final = "sha256"
_OF_LOADED: Final = "tag"
_FORMS: Final = {_OF_FILE: re.compile(r"[0-9a-f]{64}"), _OF_LOADED: re.compile(r"[0-9a-f]{16}")}


def parse_digest(text: str, *, of_file: bool) -> str:
    """Check the spelling of a digest, of a program of a file or of a loaded one; returns it.

    Raises:
        UsageError: it is none, or one of the other kind.
    """
    kind, _, value = text.lower().partition(":")
    form = _FORMS.get(kind)
    if form is None or not form.fullmatch(value):
        raise UsageError(
            f"'{text}' is no digest", "write sha256: and 64 hex digits, or tag: and 16"
        )
    if (kind == _OF_FILE) != of_file:
        raise UsageError(
            f"{kind}: is not the digest of a {'file' if of_file else 'loaded program'}",
            f"give {_OF_FILE if of_file else _OF_LOADED}:",
        )
    return f"{kind}:{value}"


def check_file(file: str, digests: Mapping[Slot, str], data: bytes | None = None) -> None:
    """Check the bytes of a file, those at its path if ``data`` is None, for slots with digests.

    Raises:
        ProgramError: they have another digest, or cannot be read.
    """
    if not digests:
        return
    try:
        content = Path(file).read_bytes() if data is None else data
    except OSError as error:
        raise ProgramError(f"cannot read {file}: {os_reason(error)}") from None
    found = f"{_OF_FILE}:{hashlib.sha256(content).hexdigest()}"
    for slot, wanted in digests.items():
        _compare(slot, file, found, wanted)


def check_loaded(slot: Slot, fd: int, digests: Mapping[Slot, str]) -> None:
    """Check the tag of a loaded program, if its slot has a digest.

    Raises:
        ProgramError: it has another tag.
    """
    if slot in digests:
        info = syscalls.program_info(fd)
        _compare(slot, f"program {info.id}", f"{_OF_LOADED}:{info.tag}", digests[slot])


def _compare(slot: Slot, what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ProgramError(
            f"slot {slot.name.lower()}: {what} has the digest {found}, not {wanted}",
            "give the program that was meant, or the new digest",
        )
