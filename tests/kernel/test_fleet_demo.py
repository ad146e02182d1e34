# SPDX-License-Identifier: GPL-2.0
"""`make fleet-demo` in a short form: waves, a hub that is killed, questions to what it keeps.

Its story across hosts is that of test_hosts.py.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from tests.demo.fleet_demo import Stage, show_hub, show_questions, show_waves

PACKETS = 15


def test_waves_and_a_hub_that_is_killed_and_questions() -> None:
    with ExitStack() as stack:
        stage = Stage(stack, PACKETS)
        assert show_waves(stage) == 2
        asyncio.run(show_hub(stage))
        show_questions(stage)
