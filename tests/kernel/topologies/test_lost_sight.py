# SPDX-License-Identifier: GPL-2.0
"""Packets that stay away for longer than they are followed, and more of them than can be."""

from __future__ import annotations

from ipttctl.link.controller import Controller
from ipttctl.stories.model import EndKind
from ipttproto.family import limit
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.journeys import Journey
from tests.kernel.support.kernel import run, wait_for
from tests.kernel.support.network import Network
from tests.kernel.support.three_hosts import PORT
from tests.kernel.support.topologies import end_text, send

#: seconds; those for which packets are followed, and some for a busy guest
GIVEN_UP = 200


def test_what_stays_away_is_lost_sight_of_and_makes_room(
    net: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """A queueing discipline keeps them; of the last one events are read."""
    most = limit("MAX_FOLLOWED")
    qdisc = ("tc", "-n", net.router.name, "qdisc")

    run(*qdisc, "add", "dev", "r2", "root", "netem", "delay", "250s", "limit", str(2 * most))
    journey = Journey(controller, make_program(asm.returning(1)).fd)
    try:
        journey.follow(f"udp dst port {PORT}")
        send(net.left, "10.77.2.2", PORT, count=most + 500)
        full = journey.hook
        held = full.followed - journey.before.followed
        assert most // 2 < held <= most
        assert full.unfollowed - journey.before.unfollowed >= 500
        gone = journey.before.lost + held
        wait_for(lambda: journey.hook.lost == gone, GIVEN_UP, "they are given up")
        with controller.events() as events:
            send(net.left, "10.77.2.2", PORT)
            assert journey.hook.followed == full.followed + 1
            assert journey.hook.unfollowed == full.unfollowed
            wait_for(lambda: journey.hook.lost == gone + 1, GIVEN_UP, "it is given up")
            # that it is dropped in the end concerns nobody any more
            run(*qdisc, "replace", "dev", "r2", "root", "noqueue")
            journey.end()
            journey.take(events)
    finally:
        run(*qdisc, "replace", "dev", "r2", "root", "noqueue")
    [story] = journey.stories
    assert story.end.kind is EndKind.LOST
    assert end_text(story).startswith("lost sight of after POSTROUTING")
