# SPDX-License-Identifier: GPL-2.0
"""The work of ``ipttctl fleet``: hosts listed, states rolled out, undone and compared."""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from ipttctl.cli.exit_codes import DIFFERS
from ipttctl.cli.hub_options import asking, check_wait, chosen_hosts
from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines, note
from ipttctl.errors import IpttctlError
from ipttctl.fleet.asker import Asker, read_hub
from ipttctl.fleet.bundle import Bundle, Signer, read_bundle
from ipttctl.fleet.heartbeat import Heartbeat, Selector
from ipttctl.fleet.host_status import HostsChanged, hosts_changed
from ipttctl.fleet.rollout import VERBS, HaltedError, Rollout, RolloutOrder
from ipttctl.fleet.rollout_record import RolloutRecord, RolloutStore, TakenError
from ipttctl.fleet.uploads import upload
from ipttctl.fleet.waves import Waves
from ipttctl.link.condition import Condition
from ipttctl.numbers import counted
from ipttctl.show.render_json import dumps

_AT_A_TIME: Final = 64
_HEADS: Final = ("HOST", "KERNEL", "MODULE", "VERSION", "TRACES", "HEARD", "LABELS", "ALLOWS")

Differences = list[tuple[str, list[Any] | IpttctlError]]


@dataclass(frozen=True)
class HubAsked:
    """The hub that is asked, by the file of its settings; times are in seconds.

    ``wait`` is how long hosts are listened to, ``patience`` how long one may take to answer.
    """

    hub: str | None = None
    wait: float | None = None
    patience: float = 0

    def check(self) -> None:
        """Check what can be checked before anything is compiled, which takes long.

        Raises:
            UsageError: the settings or a time are not valid.
        """
        check_wait(self.wait)
        read_hub(self.hub)


@dataclass(frozen=True)
class SigningAsked:
    """The file of a seed that grants are made with, if they are, and their time in seconds."""

    file: str | None
    valid: float

    def signer(self) -> Signer:
        """The signer, once its seed was read."""
        return Signer.read(self.file, self.valid)


@dataclass(frozen=True)
class RolloutAsked:
    """A roll-out as it is asked for; times are in seconds."""

    file: str
    hosts: str
    waves: str
    guards: tuple[Condition, ...]
    pause: float
    rollback_after: float


# --- hosts ----------------------------------------------------------------------------------------


def list_hosts(selector: str, asked: HubAsked, form: Output) -> None:
    """Print the hosts that are there."""
    chosen = Selector.parse(selector)
    found = asking(
        asked.hub, lambda asker: asker.find(chosen, some=bool(chosen.names)), wait=asked.wait
    )
    if form is Output.JSON:
        lines(dumps(msgspec.to_builtins(one)) for one in found)
    elif found:
        _table(_HEADS, [_cells(one) for one in found])
    else:
        note("no hosts")


def _cells(one: Heartbeat) -> Sequence[str]:
    return (
        one.host,
        one.kernel,
        one.module or "-",
        one.version,
        "-" if one.traces is None else str(one.traces),
        _age(one.time_ms),
        ",".join(f"{name}={value}" for name, value in sorted(one.labels.items())),
        ",".join(one.allow),
    )


def _age(time_ms: int | None) -> str:
    """How long ago a host sent its last heartbeat, as far as its clock is right."""
    if time_ms is None:
        return "-"
    return f"{max(0.0, time.time() - time_ms / 1000):.1f}s ago"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as what is in them."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines(["  ".join(cells).rstrip()])


# --- roll-outs ------------------------------------------------------------------------------------


def roll_out(wanted: RolloutAsked, signing: SigningAsked, asked: HubAsked) -> RolloutRecord:
    """Roll a state out, or go on with that; returns the record at its end."""
    chosen, waves = chosen_hosts(wanted.hosts), Waves.parse(wanted.waves)
    signer = signing.signer()
    asked.check()
    order = RolloutOrder(
        file=Path(wanted.file).name,
        who=_who(),
        bundle=read_bundle(wanted.file),
        waves=waves,
        chosen=wanted.hosts,
        names=chosen.names,
        guards=wanted.guards,
        pause=wanted.pause,
        rollback_after=wanted.rollback_after,
    )

    async def work(asker: Asker) -> RolloutRecord:
        rollout = _rollout(asker, asked)

        async def found() -> list[Heartbeat]:
            there = await asker.find(chosen)
            _require_allowed(there, VERBS)
            return there

        await upload(asker, order.bundle)
        await rollout.begin(order, found)
        return await _run(rollout, order.bundle, signer)

    return asking(asked.hub, work, wait=asked.wait)


def undo_last(asked: HubAsked, *, leave_silent: bool) -> RolloutRecord:
    """Have the last roll-out undone; returns its record."""

    async def work(asker: Asker) -> RolloutRecord:
        rollout = _rollout(asker, asked)
        await rollout.begin_undoing(f"{_who()} wants it so")
        try:
            await _run(rollout, None, Signer(None, 0), leave=leave_silent)
        except HaltedError:
            if not rollout.record.ended:
                raise
        return rollout.record

    return asking(asked.hub, work)


def _rollout(asker: Asker, asked: HubAsked) -> Rollout:
    return Rollout(asker, RolloutStore(asker), note, patience=asked.patience)


async def _run(
    rollout: Rollout, bundle: Bundle | None, signer: Signer, *, leave: bool = False
) -> RolloutRecord:
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
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


def tell_last(asked: HubAsked, form: Output) -> None:
    """Print the last roll-out, with its hosts by waves, and those that are not as they were kept.

    Raises:
        typer.Exit: there are some, or a host does not say.
    """

    async def work(asker: Asker) -> tuple[RolloutRecord, HostsChanged] | None:
        record = await RolloutStore(asker).read()
        if record is None:
            return None
        return record, await hosts_changed(asker, record, asked.patience)

    found = asking(asked.hub, work)
    if found is None:
        note("there was no roll-out yet")
        return
    record, hosts = found
    if form is Output.JSON:
        lines([dumps(msgspec.to_builtins(record) | asdict(hosts))])
    else:
        tell_record(record, form, whole=True)
        for called, reasons in asdict(hosts).items():
            lines(f"{called}: {host}: {why}" for host, why in sorted(reasons.items()))
    if hosts.unknown:
        raise typer.Exit(1)
    if hosts.changed:
        raise typer.Exit(DIFFERS)


def tell_record(record: RolloutRecord, form: Output, *, whole: bool = False) -> None:
    """Print what became of a roll-out."""
    if form is Output.JSON:
        lines([dumps(msgspec.to_builtins(record))])
        return
    lines([f"roll-out {record.rollout} of {record.file} by {record.who}: {record.where()}"])
    if record.why:
        lines([f"halted: {record.why}"])
    if record.unreached:
        lines([f"not undone: {', '.join(record.unreached)}"])
    if whole:
        lines(f"wave {number}: {', '.join(wave)}" for number, wave in enumerate(record.waves, 1))
    else:
        lines([counted(sum(map(len, record.waves)), "host")])


# --- differences ----------------------------------------------------------------------------------


def list_differences(
    file: str, hosts: str, signing: SigningAsked, asked: HubAsked, form: Output
) -> None:
    """Print the steps that applying a file would take on hosts.

    Raises:
        typer.Exit: a host does not say, or there are some.
    """
    chosen = chosen_hosts(hosts)
    signer = signing.signer()
    asked.check()
    bundle = read_bundle(file)

    async def work(asker: Asker) -> Differences:
        there = await asker.find(chosen)
        _require_allowed(there, ("diff",))
        await upload(asker, bundle)
        few = asyncio.Semaphore(_AT_A_TIME)

        async def one(host: str) -> tuple[str, list[Any] | IpttctlError]:
            async with few:
                try:
                    return host, await _diff(asker, host, bundle, signer, asked.patience)
                except IpttctlError as error:
                    return host, error

        return list(await asyncio.gather(*(one(found.host) for found in there)))

    differs = failed = False
    for host, answer in asking(asked.hub, work, wait=asked.wait):
        if isinstance(answer, IpttctlError):
            failed = True
            note(f"ipttctl: {answer}")
            continue
        differs = differs or bool(answer)
        if form is Output.JSON:
            # an answer may name another host
            where = {"host": host}
            lines(dumps({**where, **step, **where}) for step in answer)
        else:
            lines(f"{host} {_step_words(step)}" for step in answer)
    if failed:
        raise typer.Exit(1)
    if differs:
        raise typer.Exit(DIFFERS)


async def _diff(
    asker: Asker, host: str, bundle: Bundle, signer: Signer, patience: float
) -> list[Any]:
    request = {
        "links": bundle.request(),
        "grants": msgspec.to_builtins(signer.grants(host, bundle)),
    }
    answer = await asker.ask(host, "diff", request, patience)
    steps = answer.get("steps")
    if not isinstance(steps, list) or not all(isinstance(one, dict) for one in steps):
        raise IpttctlError(f"{host}: the answer to diff is none")
    return steps


def _step_words(step: dict[str, Any]) -> str:
    """A step that a host lists, as ``ipttctl diff`` has it on its own host."""
    words = [str(step.get("action")), str(step.get("name") or "-")]
    if step.get("link") is not None:
        words.append(f"link={step['link']}")
    changes = step.get("changes")
    if isinstance(changes, list) and changes:
        words.append(f"changes={','.join(map(str, changes))}")
    return " ".join(words)
