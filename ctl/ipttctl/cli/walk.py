# SPDX-License-Identifier: GPL-2.0
"""The verification of the walk through nftables' chains, at the first command that needs it."""

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
    """Verify the walk as ``verified`` does if a link is to be made at chains."""
    if any(hook.NEEDS_WALK for hook in hooks):
        verified(controller, alive=alive)


def verified(
    controller: Controller, otherwise: str = "", *, alive: Callable[[], None] = lambda: None
) -> None:
    """Verify the walk unless that was done before for these builds of kernel and module.

    ``otherwise`` is what the command could do without it, for an error's remedy. ``alive`` is
    called now and then meanwhile, and may raise to stop.

    Raises:
        IpttctlError: it cannot be verified, it differs, or nobody compared this kernel with it.
    """
    if walk.known(controller):
        return
    if uncompared := walk.uncompared(controller.status()):
        raise ModuleError(
            uncompared,
            f"`ipttctl module verify --although-not-compared` at your own risk{otherwise}",
        )
    with walk_progress() as show:

        def progress(done: int, count: int) -> None:
            alive()
            show(done, count)

        report = walk.verify(controller, progress=progress)
    if report:
        raise ModuleError(
            "the module's walk through chains differs from the kernel's loop",
            "please report it, with the output of `ipttctl module verify`",
        )
