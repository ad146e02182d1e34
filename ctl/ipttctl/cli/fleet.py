# SPDX-License-Identifier: GPL-2.0
"""``ipttctl fleet``: the hosts of a fleet, and states that are rolled out to them."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ipttctl.cli.durations import seconds
from ipttctl.cli.guards import parse_guards, parse_rollback_after
from ipttctl.cli.hub_options import HostsOption, HubOption, WaitOption
from ipttctl.cli.options import Output, OutputOption
from ipttctl.errors import UsageError
from ipttctl.fleet.needs import require

_DAY: Final = 86400.0

_FILE = Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON, as apply takes it")]
SignOption = Annotated[
    str | None,
    typer.Option(
        "--sign",
        metavar="KEYFILE",
        help="make grants with this seed of an nkey; without it, hosts have to list the objects",
    ),
]
GrantForOption = Annotated[
    str, typer.Option("--grant-for", metavar="TIME", help="how long the grants are valid")
]
PatienceOption = Annotated[
    str,
    typer.Option(
        "--patience", metavar="TIME", help="a host that does not answer for so long is silent"
    ),
]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback()
def fleet() -> None:
    """Look at many hosts, and roll states out to them: see docs/fleet.md."""


@app.command()
def hosts(
    selector: Annotated[
        str,
        typer.Argument(metavar="SELECTOR", help="names, labels as 'role=node,zone!=b', or all"),
    ] = "all",
    hub: HubOption = None,
    wait: WaitOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """List the hosts whose agents are there, as their heartbeats tell them.

    Hosts are named, or chosen by labels; all of them are listed by default.
    """
    require("msgspec", "nats", "nkeys")
    from ipttctl.cli import fleet_run  # noqa: PLC0415  # 210 ms; nats may be missing

    fleet_run.list_hosts(selector, fleet_run.HubAsked(hub, wait), output_form)


@app.command()
def apply(
    *,
    file: _FILE,
    hosts: HostsOption,
    waves: Annotated[
        str,
        typer.Option(
            "--waves", metavar="SIZES", help="how many hosts, or which part, after each wave"
        ),
    ] = "1,10%,100%",
    guard: Annotated[
        list[str] | None,
        typer.Option(
            "--guard",
            metavar="CONDITION",
            help="undo all as soon as this does not hold for a link, such as 'drops < 10/s'; "
            "repeatable",
        ),
    ] = None,
    pause: Annotated[
        str, typer.Option("--pause", metavar="TIME", help="how long each wave is watched")
    ] = "10s",
    rollback_after: Annotated[
        str,
        typer.Option(
            "--rollback-after",
            metavar="TIME",
            help="hosts swap back by themselves after this time unless their wave is kept",
        ),
    ] = "60s",
    sign: SignOption = None,
    grant_for: GrantForOption = "10m",
    patience: PatienceOption = "60s",
    hub: HubOption = None,
    wait: WaitOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Roll the links that FILE declares out to hosts, in waves.

    Each wave applies FILE on its hosts on trial, watches them for the pause, and keeps it. If a
    host refuses, fails, is silent or was started again, or a guard does not hold, all hosts of this
    wave and of those before go back to what the fleet had declared there before, and the exit
    status is 1. Programs of sources are compiled here; objects go to the hub's store.

    One roll-out at a time. If this is killed, run it again: it goes on where it was. If it was done
    and its hosts are as they were kept, there is nothing to do. `ipttctl fleet undo` has it undone
    instead.
    """
    guards = parse_guards(guard)
    watched = seconds("--pause", pause, _DAY)
    after = parse_rollback_after(rollback_after)
    assert after is not None
    if after <= watched:
        raise UsageError("--rollback-after: the time has to be longer than --pause")
    granted = seconds("--grant-for", grant_for, 30 * _DAY)
    patient = seconds("--patience", patience, 3600)
    require("msgspec", "nats", "nkeys")
    from ipttctl.cli import fleet_run  # noqa: PLC0415  # see hosts

    signing = fleet_run.SigningAsked(sign, granted)
    wanted = fleet_run.RolloutAsked(
        file=file,
        hosts=hosts,
        waves=waves,
        guards=tuple(guards),
        pause=watched,
        rollback_after=after,
    )
    record = fleet_run.roll_out(wanted, signing, fleet_run.HubAsked(hub, wait, patient))
    fleet_run.tell_record(record, output_form)


@app.command()
def undo(
    leave_silent: Annotated[
        bool,
        typer.Option("--leave-silent", help="end it although some hosts do not answer"),
    ] = False,
    patience: PatienceOption = "60s",
    hub: HubOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Undo the last roll-out, whether it is at its end or not.

    Its hosts go back to what the fleet had declared there before. Those that do not answer are
    told, and asked again by the next `ipttctl fleet undo`, unless --leave-silent.
    """
    patient = seconds("--patience", patience, 3600)
    require("msgspec", "nats", "nkeys")
    from ipttctl.cli import fleet_run  # noqa: PLC0415  # see hosts

    asked = fleet_run.HubAsked(hub, patience=patient)
    record = fleet_run.undo_last(asked, leave_silent=leave_silent)
    fleet_run.tell_record(record, output_form)


@app.command()
def status(
    patience: PatienceOption = "5s",
    hub: HubOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Print the last roll-out: whose it is, which step is taken, and its hosts by waves.

    Hosts whose waves were kept are asked whether they are as they were then. Those that are not
    are named; the exit status is 9 then, or 1 if a host does not say.
    """
    patient = seconds("--patience", patience, 3600)
    require("msgspec", "nats", "nkeys")
    from ipttctl.cli import fleet_run  # noqa: PLC0415  # see hosts

    fleet_run.tell_last(fleet_run.HubAsked(hub, patience=patient), output_form)


@app.command()
def diff(
    *,
    file: _FILE,
    hosts: HostsOption,
    sign: SignOption = None,
    grant_for: GrantForOption = "10m",
    patience: PatienceOption = "60s",
    hub: HubOption = None,
    wait: WaitOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """List what applying FILE would change on hosts, one step a line.

    The exit status is 9 if anything would change, 1 if a host does not say.
    """
    granted = seconds("--grant-for", grant_for, 30 * _DAY)
    patient = seconds("--patience", patience, 3600)
    require("msgspec", "nats", "nkeys")
    from ipttctl.cli import fleet_run  # noqa: PLC0415  # see hosts

    signing = fleet_run.SigningAsked(sign, granted)
    asked = fleet_run.HubAsked(hub, wait, patient)
    fleet_run.list_differences(file, hosts, signing, asked, output_form)
