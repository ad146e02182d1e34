# SPDX-License-Identifier: GPL-2.0
"""The first record of a stream of JSON: where the records that follow come from."""

from __future__ import annotations

from typing import Any

from ipttctl.link.model import ModuleStatus
from ipttctl.system.host_identity import HostIdentity


def identity(host: HostIdentity) -> dict[str, Any]:
    """The keys that name the host, the boot and the life of the module."""
    return {"host": host.host, "boot_id": host.boot_id, "module_life": host.module_life}


def stream_head(stream: str, host: HostIdentity, status: ModuleStatus | None) -> dict[str, Any]:
    """The record; ``stream`` says which stream it is, ``status`` is None without the module."""
    return {
        "type": "stream",
        "stream": stream,
        **identity(host),
        "module_version": status.version if status else None,
        "fingerprint": f"{status.fingerprint:08x}" if status else None,
    }
