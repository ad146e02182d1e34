# SPDX-License-Identifier: GPL-2.0
"""A root with the programs that write rules on real hosts: ``python -m guest.tools_root``.

It is a root of this machine's own suite in ``.build/tools/root``, for guests. Not this machine:
their daemons would start here. In the root nothing may start when a package is installed.
"""

from __future__ import annotations

import sys
from typing import Final

from guest.errors import GuestError
from guest.roots import BUILD, Root, this_suite

DIRECTORY: Final = BUILD / "tools"
_PACKAGES: Final = (
    "firewalld",
    "ufw",
    "docker.io",
    # both of podman's network back ends, and what runs its containers
    *("podman", "netavark", "containernetworking-plugins", "crun"),
    *("libvirt-daemon-system", "dnsmasq-base"),
    "fail2ban",
    *("nftables", "iptables", "iproute2"),
    *("dbus", "kmod", "procps"),
    # a container's whole file system
    "busybox-static",
)
_POLICY: Final = """#!/bin/sh
# no service starts in this root
exit 101
"""


def root() -> Root:
    """The root, whether or not it is there."""
    return Root(DIRECTORY / "root", this_suite())


def prepare() -> None:
    """Make the root, or bring it up to date with the archive.

    Raises:
        SuiteError: this fails, and there is no earlier root.
    """
    made = root()

    def install() -> None:
        policy = made.path / "usr" / "sbin" / "policy-rc.d"
        policy.write_text(_POLICY)
        policy.chmod(0o755)
        made.install(*_PACKAGES)

    announcement = "Making a root with firewalls and containers: some minutes, a gigabyte"
    made.prepare(announcement, install, contents=" ".join(_PACKAGES))


def main() -> int:
    """Prepare the root; return the exit status."""
    try:
        prepare()
    except GuestError as error:
        print(f"tools: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
