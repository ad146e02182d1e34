# SPDX-License-Identifier: GPL-2.0
"""A program for a throw-away network namespace: loads rules, and connects to each service.

Every address of the pods is local, so that a listener accepts what a rule sent to an endpoint, and
its socket has the endpoint's address. The input is the command that loads rules, the one that lists
them, the rules, and whether to connect; the output the listing, and where connections went.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys

from tests.kernel.support.kube_rulesets import TARGET, services

# The kernel bounds the ICMP errors of a moment, so that a rejection may be kept back; the SYN is
# sent again after 1, 2 and 4 s.
_PATIENCE_S = 10

_NETWORK = (
    ("link", "set", "lo", "up"),
    ("link", "add", "out", "type", "veth", "peer", "name", "far"),
    ("link", "set", "out", "up"),
    ("link", "set", "far", "up"),
    ("address", "add", "192.0.2.1/24", "dev", "out"),
    ("route", "add", "default", "via", "192.0.2.2"),
    ("neighbor", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "out"),
    ("route", "add", "local", "10.244.0.0/16", "dev", "lo"),
)


def main() -> None:
    """Load what standard input says, and print what became of it."""
    request = json.load(sys.stdin)
    for command in _NETWORK:
        subprocess.run(["/sbin/ip", *command], check=True)
    subprocess.run(request["load"], input=request["rules"], text=True, check=True)
    fates = {}
    with socket.create_server(("0.0.0.0", TARGET), backlog=16) as listener:
        listener.settimeout(1)
        for service in services() if request["connect"] else ():
            fates[service.address] = _connect(service.address, service.port, listener)
    listing = subprocess.run(request["list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    json.dump({"fates": fates, "listing": listing}, sys.stdout)


def _connect(address: str, port: int, listener: socket.socket) -> str:
    """Where a connection arrives; ``rejected``, or another error."""
    try:
        with socket.create_connection((address, port), timeout=_PATIENCE_S):
            accepted, _ = listener.accept()
            with accepted:
                host, at = accepted.getsockname()
                return f"{host}:{at}"
    except ConnectionRefusedError:
        return "rejected"
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    main()
