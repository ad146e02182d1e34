# SPDX-License-Identifier: GPL-2.0
"""``ipttctl agent``: this host as one of many, which are asked by NATS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from ipttctl.cli.printing import lines, note
from ipttctl.cli.signals import on_ending
from ipttctl.fleet.needs import require
from ipttctl.system.service_manager import ServiceManager

if TYPE_CHECKING:
    from ipttctl.fleet.config import AgentConfig


def agent(
    config: Annotated[
        str, typer.Option("--config", metavar="FILE", help="the configuration, in YAML")
    ] = "/etc/ipttctl/agent.yaml",
    check: Annotated[
        bool, typer.Option("--check", help="say what is wrong with the configuration, and end")
    ] = False,
) -> None:
    """Publish what happens on this host to the NATS server on it, and do what others may ask.

    Runs until SIGTERM or Ctrl-C, also without the server or the module, and begins when they are
    there. Events and stories go to a bounded stream of JetStream; what a bound throws away is
    counted. Others may ask for links and traces unless the configuration says otherwise; a trace
    ends when nobody renews it. The configuration's watches run whether anybody asks or not. At the
    end all their links are detached, and what is known is published, for as long as the
    configuration's "drain" says.

    Needs packages of Python that come with `pip install 'ipttctl[fleet]'`.
    """
    require("msgspec", "nats", "nkeys")
    from ipttctl.fleet.config_file import read_config  # noqa: PLC0415  # 60 ms, may be missing

    found = read_config(config)
    if found.metrics is not None:
        require("prometheus_client")
    if found.otlp is not None:
        require("opentelemetry.exporter.otlp.proto.http")
    if check:
        watches = f", watches {', '.join(one.name for one in found.watch)}" if found.watch else ""
        allowed = ", ".join(found.allow) or "nothing"
        lines([f"{config}: host {found.host}, allows {allowed}{watches}"])
        return
    asyncio.run(_run(found))


async def _run(config: AgentConfig) -> None:
    from ipttctl.cli.agent_host import LocalHost  # noqa: PLC0415  # nats: 110 ms, may be missing
    from ipttctl.fleet.agent import Agent  # noqa: PLC0415  # see above

    loop = asyncio.get_running_loop()
    running = Agent(config, LocalHost(config.netns), ServiceManager(), note)

    def stop() -> None:
        loop.call_soon_threadsafe(running.stop)

    with on_ending(stop):
        await running.run()
