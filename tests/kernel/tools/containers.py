# SPDX-License-Identifier: GPL-2.0
"""A container that serves a page, made of nothing but busybox: no registry is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.kernel.support.both_traces import PAGE
from tests.kernel.support.box import Box
from tests.kernel.support.network import Namespace

PORT: Final = 8080
_IMAGE: Final = """set -e
mkdir -p /tmp/image/bin /tmp/image/www
cp /bin/busybox /tmp/image/bin
cat >/tmp/image/www/index.html
tar -C /tmp/image -cf /tmp/image.tar .
"""


@contextmanager
def container(box: Box, program: str) -> Iterator[Namespace]:
    """A running container with a published port, by its network namespace."""
    box.write("/etc/resolv.conf", "")
    box.run("sh", "-c", _IMAGE, text=PAGE.decode())
    box.run(program, "import", "/tmp/image.tar", "web")
    server = ("/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    box.run(program, "run", "--detach", "--name", "web", "--publish", f"{PORT}:80", "web", *server)
    try:
        pid = box.run(program, "inspect", "--format", "{{.State.Pid}}", "web")
        yield box.namespace_of(int(pid))
    finally:
        # its control group, with a BPF program, would outlive the box
        box.run(program, "rm", "--force", "web")
