# SPDX-License-Identifier: GPL-2.0
"""``ipttctl fleet``: the hosts of a fleet, and states that are rolled out to them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ipttctl.cli.durations import seconds
from ipttctl.cli.exit_codes import DIFFERS
from ipttctl.cli.guards import parse_guards, parse_rollback_after
from ipttctl.cli.hub_options import HostsOption, HubOption, WaitOption, asking
from ipttctl.cli.options import Output, OutputOption
from ipttctl.cli.printing import lines, note
from ipttctl.errors import IpttctlError, UsageError
from ipttctl.fleet.needs import require
from ipttctl.show.render_json import dumps

if TYPE_CHECKING:
    from ipttctl.fleet.asker import Asker
    from ipttctl.fleet.bundle import Bundle, Signer
    from ipttctl.fleet.heartbeat import Heartbeat
    from ipttctl.fleet.rollout import Rollout
    from ipttctl.fleet.rollout_record import RolloutRecord

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

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


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
    from ipttctl.fleet.heartbeat import Selector  # noqa: PLC0415  # msgspec may be missing

    chosen = Selector.parse(selector)
    found = asking(hub, lambda asker: asker.find(chosen, some=bool(chosen.names)), wait=wait)
    if output_form is Output.JSON:
        lines(dumps(_host_object(one)) for one in found)
    else:
        _table(
            ("HOST", "KERNEL", "MODULE", "VERSION", "TRACES", "HEARD", "LABELS", "ALLOWS"),
            [
                (
                    one.host,
                    one.kernel,
                    one.module or "-",
                    one.version,
                    "-" if one.traces is None else str(one.traces),
                    _age(one.time_ms),
                    ",".join(f"{name}={value}" for name, value in sorted(one.labels.items())),
                    ",".join(one.allow),
                )
                for one in found
            ],
        )


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

    One roll-out at a time. If this is killed, run it again: it goes on where it was. `ipttctl fleet
    undo` has it undone instead.
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
    from ipttctl.fleet.bundle import Signer, read_bundle, upload  # noqa: PLC0415  # see hosts
    from ipttctl.fleet.heartbeat import Selector  # noqa: PLC0415  # see hosts
    from ipttctl.fleet.rollout import VERBS, RolloutOrder  # noqa: PLC0415  # see hosts
    from ipttctl.fleet.waves import Waves  # noqa: PLC0415  # see hosts

    chosen = Selector.parse(hosts)
    signer = Signer.read(sign, granted)
    order = RolloutOrder(
        file=Path(file).name,
        who=_who(),
        bundle=read_bundle(file),
        waves=Waves.parse(waves),
        chosen=hosts,
        names=chosen.names,
        guards=tuple(guards),
        pause=watched,
        rollback_after=after,
    )

    async def work(asker: Asker) -> RolloutRecord:
        rollout = _rollout(asker, patient)

        async def found() -> list[Heartbeat]:
            there = await asker.find(chosen)
            _require_allowed(there, VERBS)
            return there

        await upload(asker, order.bundle)
        await rollout.begin(order, found)
        return await _run(rollout, order.bundle, signer)

    record = asking(hub, work, wait=wait)
    _tell_record(record, output_form)


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
    from ipttctl.fleet.bundle import Signer  # noqa: PLC0415  # see hosts
    from ipttctl.fleet.rollout import HaltedError  # noqa: PLC0415  # see hosts

    async def work(asker: Asker) -> RolloutRecord:
        rollout = _rollout(asker, patient)
        await rollout.begin_undoing(f"{_who()} wants it so")
        try:
            await _run(rollout, None, Signer(None, 0), leave=leave_silent)
        except HaltedError:
            if not rollout.record.ended:
                raise
        return rollout.record

    _tell_record(asking(hub, work), output_form)


@app.command()
def status(hub: HubOption = None, output_form: OutputOption = Output.TEXT) -> None:
    """Print the last roll-out: whose it is, which step is taken, and its hosts by waves."""
    require("msgspec", "nats", "nkeys")
    from ipttctl.fleet.rollout_record import RolloutStore  # noqa: PLC0415  # see hosts

    found = asking(hub, lambda asker: RolloutStore(asker).read())
    if found is None:
        note("there was no roll-out yet")
        return
    _tell_record(found, output_form, whole=True)


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
    from ipttctl.fleet.bundle import Signer, read_bundle, upload  # noqa: PLC0415  # see hosts
    from ipttctl.fleet.heartbeat import Selector  # noqa: PLC0415  # see hosts

    chosen = Selector.parse(hosts)
    signer = Signer.read(sign, granted)
    bundle = read_bundle(file)

    async def work(asker: Asker) -> list[tuple[str, list[Any] | IpttctlError]]:
        there = await asker.find(chosen)
        _require_allowed(there, ("diff",))
        await upload(asker, bundle)
        few = asyncio.Semaphore(64)

        async def one(host: str) -> tuple[str, list[Any] | IpttctlError]:
            async with few:
                try:
                    return host, await _diff(asker, host, bundle, signer, patient)
                except IpttctlError as error:
                    return host, error

        return list(await asyncio.gather(*(one(found.host) for found in there)))

    answers = asking(hub, work, wait=wait)
    differs = failed = False
    for host, answer in answers:
        if isinstance(answer, IpttctlError):
            failed = True
            note(f"ipttctl: {answer}")
            continue
        differs = differs or bool(answer)
        if output_form is Output.JSON:
            lines(dumps({"host": host, **step}) for step in answer)
        else:
            lines(f"{host} {_step_words(step)}" for step in answer)
    if failed:
        raise typer.Exit(1)
    if differs:
        raise typer.Exit(DIFFERS)


async def _diff(
    asker: Asker, host: str, bundle: Bundle, signer: Signer, patience: float
) -> list[Any]:
    import msgspec  # noqa: PLC0415  # may be missing

    request = {
        "links": bundle.request(),
        "grants": msgspec.to_builtins(signer.grants(host, bundle)),
    }
    answer = await asker.ask(host, "diff", request, patience)
    steps = answer.get("steps")
    if not isinstance(steps, list) or not all(isinstance(one, dict) for one in steps):
        raise IpttctlError(f"{host}: the answer to diff is none")
    return steps


def _rollout(asker: Asker, patience: float) -> Rollout:
    from ipttctl.fleet.rollout import Rollout  # noqa: PLC0415  # see hosts
    from ipttctl.fleet.rollout_record import RolloutStore  # noqa: PLC0415  # see hosts

    return Rollout(asker, RolloutStore(asker), note, patience=patience)


async def _run(
    rollout: Rollout, bundle: Bundle | None, signer: Signer, *, leave: bool = False
) -> RolloutRecord:
    from ipttctl.fleet.rollout_record import TakenError  # noqa: PLC0415  # see hosts

    try:
        await rollout.run(bundle, signer, leave=leave)
    except TakenError:
        # the one who has it now is to keep it
        raise
    except BaseException:
        await rollout.release()
        raise
    return rollout.record


def _require_allowed(found: Sequence[Heartbeat], verbs: Sequence[str]) -> None:
    """Check that hosts allow verbs before any of them is asked."""
    for one in found:
        missing = [verb for verb in verbs if verb not in one.allow]
        if missing:
            raise IpttctlError(
                f"{one.host} does not allow {', '.join(missing)}",
                "have its agent's configuration allow it, or leave it out",
            )


def _who() -> str:
    """The user and the host of this process, as others are told them."""
    import getpass  # noqa: PLC0415  # 5 ms

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


def _tell_record(record: RolloutRecord, form: Output, *, whole: bool = False) -> None:
    if form is Output.JSON:
        import msgspec  # noqa: PLC0415  # may be missing

        lines([dumps(msgspec.to_builtins(record))])
        return
    count = sum(map(len, record.waves))
    lines([f"roll-out {record.rollout} of {record.file} by {record.who}: {record.where()}"])
    if record.why:
        lines([f"halted: {record.why}"])
    if record.unreached:
        lines([f"not undone: {', '.join(record.unreached)}"])
    if whole:
        lines(f"wave {number}: {', '.join(wave)}" for number, wave in enumerate(record.waves, 1))
    else:
        lines([f"{count} host{'' if count == 1 else 's'}"])


def _age(time_ms: int | None) -> str:
    """How long ago a host sent its last heartbeat, as far as its clock is right."""
    if time_ms is None:
        return "-"
    return f"{max(0.0, time.time() - time_ms / 1000):.1f}s ago"


def _host_object(one: Heartbeat) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415  # may be missing

    found: dict[str, Any] = msgspec.to_builtins(one)
    return found


def _step_words(step: dict[str, Any]) -> str:
    """A step that a host lists, as ``ipttctl diff`` has it on its own host."""
    words = [str(step.get("action")), str(step.get("name") or "-")]
    if step.get("link") is not None:
        words.append(f"link={step['link']}")
    changes = step.get("changes")
    if isinstance(changes, list) and changes:
        words.append(f"changes={','.join(map(str, changes))}")
    return " ".join(words)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as what is in them."""
    if not rows:
        note("no hosts")
        return
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines(["  ".join(cells).rstrip()])
