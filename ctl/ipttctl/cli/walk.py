# SPDX-License-Identifier: GPL-2.0
"""The verification of the walk through nftables' chains, at the first command that needs it."""

from __future__ import annotations

from ipttctl.cli.output import walk_progress
from ipttctl.errors import ModuleError
from ipttctl.host import walk
from ipttctl.link.controller import Controller


def verified(controller: Controller) -> None:
    """Verify the walk unless that was done before for these builds of kernel and module.

    Raises:
        IpttctlError: it cannot be verified, it differs, or nobody compared the sources of this
            series of kernels with it.
    """
    if walk.known(controller):
        return
    if not controller.status().walk_compared:
        raise ModuleError(
            "nobody compared the sources of this series of kernels with the module's walk",
            "`ipttctl module verify --although-not-compared` at your own risk, or --backend legacy",
        )
    with walk_progress() as progress:
        report = walk.verify(controller, progress=progress)
    if report:
        raise ModuleError(
            "the module's walk through chains differs from the kernel's loop",
            "please report it, with the output of `ipttctl module verify`",
        )
