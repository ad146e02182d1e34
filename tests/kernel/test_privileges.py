# SPDX-License-Identifier: GPL-2.0
"""Who may not: root of a user namespace, as in a container that shares the host's network.

It has CAP_NET_ADMIN as far as it can see, but not in the initial user namespace.
"""

from __future__ import annotations

import json
import subprocess
import sys

from ipttctl.controller import Controller
from ipttproto import Command, Group

#: tries everything and prints what became of it
SCRIPT = """
import json

from ipttctl.controller import Controller
from ipttctl.errors import IpttctlError
from ipttctl.objects import ProgramSet
from ipttctl.wire import Connection
from ipttproto import Command, Group, Slot

requests = {
    Command.ATTACH: lambda c: c.attach(ProgramSet({Slot.ENTRY: 0})),
    Command.SWAP: lambda c: c.swap(1, ProgramSet({Slot.ENTRY: 0})),
    Command.DETACH: lambda c: c.detach(1),
    Command.GET: lambda c: c.links(),
    Command.STATS: lambda c: c.status(),
}

def outcome(function, *arguments):
    try:
        function(*arguments)
    except IpttctlError as error:
        return type(error).__name__
    return "allowed"

outcomes = {"open": outcome(Controller)}
with Connection.open() as connection:
    for group in Group:
        outcomes[group] = outcome(connection.join, group)
with Controller(check=False) as controller:
    for command, request in requests.items():
        outcomes[command.name] = outcome(request, controller)
print(json.dumps(outcomes))
"""

GUARDED = (Command.ATTACH, Command.SWAP, Command.DETACH, Command.GET, Command.STATS)


def test_root_of_a_user_namespace_may_do_nothing(controller: Controller) -> None:
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
    )
    outcomes = json.loads(done.stdout)
    expected = {"open": "RefusedPrivilegeError"}
    expected |= {group.value: "PrivilegeError" for group in Group}
    expected |= {command.name: "RefusedPrivilegeError" for command in GUARDED}
    assert outcomes == expected
    assert controller.links() == []
