# SPDX-License-Identifier: GPL-2.0
"""The verification of the module's walks, at the first command that needs one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ipttctl.cli.output import walk_progress
from ipttctl.errors import ModuleError
from ipttctl.hooks.hook import Hook
from ipttctl.host import walk
from ipttctl.link.controller import Controller


def verified_for(
    controller: Controller, hooks: Iterable[Hook], alive: Callable[[], None] = lambda: None
) -> None:
    """Verify the walks as ``verified`` does if a link is to be made that takes one."""
    needing = [hook for hook in hooks if hook.NEEDS_WALK]
    if needing:
        spine = any(hook.NEEDS_SPINE_WALK for hook in needing)
        verified(controller, spine=spine, alive=alive)


def verified(
    controller: Controller,
    otherwise: str = "",
    *,
    spine: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Verify the walks unless that was done before for these builds of kernel and module.

    That through chains has to be verified, with ``spine`` the one along the spine too.

    ``otherwise`` is what the command could do without it, for an error's remedy. ``alive`` is
    called now and then meanwhile, and may raise to stop.

    Raises:
        IpttctlError: it cannot be verified, it differs, or nobody compared this kernel with it.
    """
    if walk.known(controller, spine=spine):
        return
    if uncompared := walk.uncompared(controller.status()):
        raise ModuleError(
            uncompared,
            f"`ipttctl module verify --although-not-compared` at your own risk{otherwise}",
        )
    with walk.turn(alive):
        report = "" if walk.known(controller, spine=spine) else _verify(controller, alive)
    if report:
        raise ModuleError(
            "the module's walks differ from the kernel's loops",
            "please report it, with the output of `ipttctl module verify`",
        )
    if spine and not walk.known(controller, spine=True):
        raise ModuleError(
            "the walk along the spine cannot be verified: something else redirects the kernel's "
            "nf_hook_slow()",
            "end the live patch of it",
        )


def _verify(controller: Controller, alive: Callable[[], None]) -> str:
    """Verify the walks, with a line of progress; returns a report of what differs."""
    with walk_progress() as show:

        def progress(done: int, count: int) -> None:
            alive()
            show(done, count)

        return walk.verify(controller, progress=progress)
