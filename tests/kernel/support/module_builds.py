# SPDX-License-Identifier: GPL-2.0
"""Other builds of the module under test: its file, with some bytes changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ipttctl.host import builds, walk
from ipttproto import Walk
from tests.kernel.support.kernel import MODULE

#: the version in netlink.h, as modinfo has it and as the module says it
VERSION = b"0.1.0\0"
OTHER_VERSION = b"0.1.1\0"
#: a function that the module calls, and one that no kernel has
FUNCTION, NO_FUNCTION = b"\0bpf_prog_destroy\0", b"\0bpf_prog_destroX\0"
_NOTE_HEAD = bytes.fromhex("04000000 14000000 03000000") + b"GNU\0"


def other_build(path: Path, directory: Path, *, loads: bool = True) -> Path:
    """A file of another version and build, which the kernel does not take unless it ``loads``."""
    content = path.read_bytes()
    build = builds.of_file(path)
    assert build is not None
    assert content.count(VERSION) >= 2
    content = content.replace(VERSION, OTHER_VERSION).replace(build, build[::-1])
    if not loads:
        assert FUNCTION in content
        content = content.replace(FUNCTION, NO_FUNCTION)
    directory.mkdir()
    made = directory / f"{MODULE}.ko"
    made.write_bytes(content)
    assert builds.of_file(made) == build[::-1]
    return made


def keep_walk(path: Path, result: Walk) -> Path:
    """Keep a result of verifying the walk for a module file; returns the file of the result."""
    build = builds.of_file(path)
    assert build is not None
    digest = hashlib.sha256(Path("/sys/kernel/notes").read_bytes() + _NOTE_HEAD + build)
    walk.KEPT.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = walk.KEPT / digest.hexdigest()[:32]
    place.write_text(json.dumps({"walk": result.name.lower()}))
    return place
