# SPDX-License-Identifier: GPL-2.0
"""Whether the module may walk through nftables' chains, and along the spine, for the kernel.

The module takes links there only once somebody has verified on the running kernel that its walks
do what the kernel's own loops do. A fixed part of the differential test
(``ipttctl.verify``) does that, in network namespaces of its own. Its result is kept for the same
builds of kernel and module. Where the kernel has its structures elsewhere than the module would
look for them, the module takes no links at all.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ipttctl.bpf.private_dirs import check_private, make_private
from ipttctl.bpf.programs import Program
from ipttctl.errors import IpttctlError, KernelError, ModuleError
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.spine import SpineHook
from ipttctl.host.module import BUILT, NAME
from ipttctl.link.controller import Controller
from ipttctl.link.model import ModuleStatus, ProgramSet
from ipttproto import Layout, Walk

if TYPE_CHECKING:
    from ipttctl.verify.laboratory import Namespaces

CASES: Final = 30
"""Cases of the fixed part; in every fifth the ruleset changes while packets pass."""

SEED: Final = 1
"""Seed of the fixed part."""

MISFIT_REMEDY: Final = "build the module for the running kernel: `ipttctl module build`"
"""The remedy where the kernel's structures differ from the module's."""

KEPT: Final = BUILT / "verified"
"""Where results are kept, a file for each pair of builds."""

_NOTES: Final = (
    Path("/sys/kernel/notes"),
    Path(f"/sys/module/{NAME}/notes/.note.gnu.build-id"),
)
_INTERVAL: Final = 0.1
"""Seconds between two attempts to have the turn."""
#: r0 = 1; exit: selects each packet, and asks for each event
_YES: Final = bytes.fromhex("b7000000010000009500000000000000")


class Walks(NamedTuple):
    """The results for the walk through chains, and for the one along the spine."""

    chains: Walk = Walk.UNVERIFIED
    spine: Walk = Walk.UNVERIFIED


Progress = Callable[[int, int], None]
"""Is called with the number of cases that have passed, and of all."""


def verify(
    controller: Controller,
    *,
    count: int = CASES,
    seed: int = SEED,
    although_not_compared: bool = False,
    progress: Progress | None = None,
) -> str:
    """Verify the walks, tell the module the result and keep it.

    Where something else redirects the kernel's function, the walk along the spine stays unverified.

    On series of kernels whose sources nobody compared with the walk, and on kernels that do not
    describe their structures, a result is trusted only ``although_not_compared``. Returns a report
    of the first case that differs, or nothing.

    Raises:
        IpttctlError: it cannot be verified.
    """
    from ipttctl.verify.run import Runner, cases  # noqa: PLC0415  # 7 ms, once on a machine
    from ipttctl.verify.words import Vocabulary  # noqa: PLC0415  # 7 ms, once on a machine

    report = ""
    left_out: set[type[Hook]] = set()
    with (
        Controller() as verifier,
        Runner(Vocabulary.BUILTIN) as runner,
        Program.load(_YES, name="verify") as program,
    ):
        observed = partial(observing, verifier, program, left_out=left_out)
        for done, case in enumerate(cases(Vocabulary.BUILTIN, seed, count)):
            result = runner.run(case, observed)
            if result.differences:
                report = result.report()
                break
            if progress:
                progress(done + 1, count)
    walk = Walk.DIFFERS if report else Walk.VERIFIED
    spine = Walk.UNVERIFIED if SpineHook in left_out else walk
    controller.end_verification(walk, spine=spine, although_not_compared=although_not_compared)
    _keep(Walks(walk, spine), count, seed)
    return report


@contextmanager
def observing(
    verifier: Controller,
    program: Program,
    namespaces: Namespaces,
    *,
    left_out: set[type[Hook]] | None = None,
) -> Iterator[None]:
    """Have links at all chains of the router of a case, and at its spine, with all programs.

    With ``left_out``, which then has it, there is none at the spine where that is redirected by
    something else.
    """
    router = namespaces.router.fileno()
    verifier.try_walk(router)
    links = []
    try:
        for hook in (ChainHook(netns=router), SpineHook(netns=router)):
            programs = ProgramSet(dict.fromkeys(hook.SLOTS, program.fd))
            try:
                links.append(verifier.attach(hook, programs))
            except KernelError as error:
                if error.errno != errno.EBUSY or left_out is None or isinstance(hook, ChainHook):
                    raise
                left_out.add(type(hook))
        yield
    finally:
        for link in links:
            verifier.detach(link.id)


@contextmanager
def turn(alive: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process has a turn, so that commands which begin together verify once.

    ``alive`` is called while it waits, and may raise to stop. A process that dies ends its turn.
    Where no result can be kept there are no turns.
    """
    try:
        make_private(KEPT)
        directory = os.open(KEPT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, IpttctlError):
        yield
        return
    try:
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # flock() knows no time-out
                time.sleep(_INTERVAL)
                alive()
        yield
    finally:
        os.close(directory)


def known(controller: Controller, *, spine: bool = False) -> bool:
    """Whether the walk through chains is verified, and with ``spine`` the one along the spine.

    By the module, or by a kept result, which the module is told.

    Raises:
        ModuleError: a walk differs from the kernel's loop, or does not fit its structures.
    """
    status = controller.status()
    if status.walk_layout == Layout.DIFFERS:
        raise ModuleError(status.walk_refusal, MISFIT_REMEDY)
    needed = {status.walk, status.spine_walk} if spine else {status.walk}
    if Walk.UNVERIFIED in needed and not uncompared(status):
        found = kept()
        # results are kept together, and told together
        if Walk.VERIFIED in found:
            controller.end_verification(found.chains, spine=found.spine)
        needed = {found.chains, found.spine} if spine else {found.chains}
    if Walk.DIFFERS in needed:
        raise ModuleError(
            "on this kernel the module's walk does not do what the kernel does",
            "please report it, with the output of `ipttctl module verify`",
        )
    return needed == {Walk.VERIFIED}


def uncompared(status: ModuleStatus) -> str:
    """A sentence on whatever was not compared with the walk; empty if all was."""
    if not status.walk_compared:
        return "nobody compared the sources of this series of kernels with the module's walk"
    return status.walk_refusal if status.walk_layout == Layout.UNKNOWN else ""


def _place() -> Path | None:
    """The file of these builds; None if they cannot be told from others."""
    digest = hashlib.sha256()
    try:
        for note in _NOTES:
            digest.update(note.read_bytes())
    except OSError:
        return None
    return KEPT / digest.hexdigest()[:32]


def _keep(walks: Walks, count: int, seed: int) -> None:
    """Keep a result; without a place for it, it is found again the next time."""
    place = _place()
    if place is None:
        return
    with suppress(OSError, IpttctlError):
        make_private(KEPT)
        names = {"walk": walks.chains.name.lower(), "spine": walks.spine.name.lower()}
        text = names | {"cases": count, "seed": seed}
        temporary = place.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(text) + "\n")
        temporary.replace(place)


def kept() -> Walks:
    """The results that are kept for these builds of kernel and module."""
    place = _place()
    if place is None:
        return Walks()
    try:
        check_private(place)
        found = json.loads(place.read_text())
        names = (str(found.get(key, Walk.UNVERIFIED.name)) for key in ("walk", "spine"))
        return Walks(*(Walk[name.upper()] for name in names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IpttctlError):
        return Walks()
