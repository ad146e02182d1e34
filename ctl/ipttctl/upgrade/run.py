# SPDX-License-Identifier: GPL-2.0
"""Replace the module that is loaded by the one that would be loaded now, and keep its links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from ipttctl.bpf.private_dirs import make_private
from ipttctl.errors import (
    ExpectationError,
    IpttctlError,
    ModuleError,
    ProgramError,
    UsageError,
    os_reason,
)
from ipttctl.escape import word
from ipttctl.host import builds, module
from ipttctl.host.unfinished import JOURNAL, boot
from ipttctl.link.controller import require_same_protocol
from ipttctl.link.model import Link
from ipttctl.link.restore import LinkRecord, LinkSnapshot, Restorer
from ipttctl.link.wire import require_privilege
from ipttctl.state.journal import RECORD, life, locked
from ipttctl.state.undo import Signals, held_back
from ipttctl.upgrade.journal import Journal, ModuleFile, discard, pin, since_boot
from ipttctl.upgrade.steps import REASON, Told, UpgradeOutcome, complete
from ipttproto import Feature

_PARAMETER: Final = "restore_link"
_ATTEMPTS: Final = 16
#: the remedy where one of the modules knows nothing of upgrades
_BY_HAND: Final = "detach the links, then unload and load the module"


Report = Callable[[UpgradeOutcome], None]
"""Is called with the end of an upgrade, before a signal can end the process."""


def upgrade(
    told: Told, *, force: bool = False, report: Report = lambda _: None
) -> UpgradeOutcome | None:
    """Replace the module, keep its persistent links; or go on with an upgrade that was killed.

    The new module is the one that ``ipttctl module load`` would load. Returns None if it is the one
    that is loaded. With ``force`` links that cannot be kept, those of processes among them, end,
    and the module is replaced although there is no file of the old one to go back to. ``told`` is
    called with sentences about what takes long. Signals that end the process wait until the links
    are back, and are dropped then: it ends with what came of the upgrade, which ``report`` tells.

    Raises:
        PrivilegeError: the caller may not load modules.
        ModuleError: it is refused, and nothing has changed; or neither module takes the links.
    """
    require_privilege()
    with locked(RECORD, tell=told), held_back() as signals:
        outcome = _resumed(told, signals, report)
        if outcome is not None:
            return outcome
        with ExitStack() as undo:
            journal = _begin(force, signals, undo)
            undo.pop_all()
        return None if journal is None else _completed(journal, told, signals, report)


def resume(told: Told, *, report: Report = lambda _: None) -> UpgradeOutcome | None:
    """Go on with an upgrade that was killed; returns None if there is none.

    ``told``, ``report`` and signals are as for ``upgrade``.

    Raises:
        PrivilegeError: the caller may not load modules.
        ModuleError: neither module takes the links.
    """
    require_privilege()
    with locked(RECORD, tell=told), held_back() as signals:
        return _resumed(told, signals, report)


def _completed(journal: Journal, told: Told, signals: Signals, report: Report) -> UpgradeOutcome:
    """End an upgrade, and have that told whatever signals have come."""
    try:
        outcome = complete(journal, told)
        report(outcome)
        return outcome
    finally:
        signals.told.clear()


def _resumed(told: Told, signals: Signals, report: Report) -> UpgradeOutcome | None:
    """The end of an upgrade that was killed; None if there was none, or nothing had changed."""
    journal = Journal.read()
    if journal is None:
        discard()
        return None
    if journal.boot != boot():
        told(
            "an upgrade of the module was under way when the machine went down; its links went "
            f"with that, as with any reboot: {_names(journal.records)}"
        )
        discard()
        return None
    if not journal.counted and not _parked_now(journal):
        # it was killed before the links were parked; somebody may have unloaded the module since
        discard()
        return None
    return _completed(journal, told, signals, report)


def _parked_now(journal: Journal) -> bool:
    """Whether the module of before is loaded, and its links are parked."""
    loaded = builds.running()
    if loaded is None or loaded.hex() != journal.old.build:
        return False
    with Restorer() as restorer:
        return restorer.status().restoring


def _begin(force: bool, signals: Signals, undo: ExitStack) -> Journal | None:
    """Park the links, after all that can be refused; None if there is nothing to do."""
    running = builds.running()
    if running is None:
        raise ModuleError(
            "the ipttrace module is not loaded, or the kernel does not say of which build it is",
            "run `ipttctl module load`",
        )
    new = module.loadable()
    build = builds.of_file(new)
    if build == running:
        return None
    if build is None:
        raise ModuleError(f"{new} has no build id that can be read", "build it again")
    if not any(line.startswith(f"{_PARAMETER}:") for line in module.field_of(new, "parm")):
        raise ModuleError(f"{new} cannot take links over: it is older than that", _BY_HAND)
    old = module.running_file(running)
    if old is None and not force:
        raise ModuleError(
            "the file of the module that is loaded is nowhere: if the new one does not load, "
            "there is nothing to go back to",
            "run it with --force to replace it all the same",
        )
    with Restorer() as restorer:
        status = restorer.status()
        require_same_protocol(status)
        if Feature.UPGRADES not in status.features:
            raise ModuleError(f"module {status.version} is older than upgrades", _BY_HAND)
        undo.callback(discard)
        journal = Journal(
            boot(),
            life(),
            _copied(old, "old", running, status.version),
            _copied(new, "new", build, " ".join(module.field_of(new, "version"))),
            restorer.snapshot().numbers,
            (),
        )
        return _parked(restorer, journal, force, signals, undo)


def _parked(
    restorer: Restorer, journal: Journal, force: bool, signals: Signals, undo: ExitStack
) -> Journal:
    """Park the links as the journal has them, which is written again until it has the last state.

    ``undo`` discards the journal; not where the links may be parked.

    Raises:
        ModuleError: links cannot be kept, and there is no ``force``.
    """
    for _ in range(_ATTEMPTS):
        snapshot = restorer.snapshot()
        journal = _noted(journal, snapshot, force)
        pin(journal.records)
        journal.write()
        signals.check()
        journal = replace(journal, parked=since_boot())
        undo.pop_all()
        try:
            restorer.park(snapshot.numbers.sequence, force=force, reason=REASON)
        except IpttctlError as error:
            # without an answer it may have been done all the same
            if not restorer.status().restoring:
                undo.callback(discard)
                if isinstance(error, ExpectationError):
                    continue
                raise
        return journal
    raise ModuleError("the links change faster than they can be noted", "try again")


def _noted(journal: Journal, snapshot: LinkSnapshot, force: bool) -> Journal:
    """The journal with all links that can be kept.

    Raises:
        ModuleError: some cannot, and there is no ``force``.
    """
    reasons = [(record, _hindrance(record)) for record in snapshot.records]
    for record in snapshot.records:
        _require_decided(record.link)
    left_out = tuple(f"link {_called(one.link)} {why}" for one, why in reasons if why)
    if left_out and not force:
        raise ModuleError(
            f"not every link can be kept: {'; '.join(left_out)}",
            "release or detach them, or run it with --force, which ends them",
        )
    return replace(
        journal,
        numbers=snapshot.numbers,
        records=tuple(record for record, why in reasons if not why),
        left_out=left_out,
        parked=since_boot(),
    )


def _require_decided(link: Link) -> None:
    """Raise ModuleError if the next programs of a link are being tried."""
    called = _called(link)
    if link.waits:
        raise ModuleError(
            f"the last swap of link {called} waits to be confirmed or rolled back",
            f"wait, or run `ipttctl confirm {called}` or `ipttctl rollback {called}`",
        )
    if link.shadow is not None:
        raise ModuleError(
            f"link {called} has a shadow",
            f"run `ipttctl promote {called}` or `ipttctl drop-shadow {called}`",
        )


def _hindrance(record: LinkRecord) -> str:
    """Why a link cannot be restored; empty if it can."""
    link = record.link
    if not link.persistent:
        return f"belongs to process {link.owner_pid} ({word(link.owner_comm)})"
    if link.hook.gone is not None:
        return "is at no hook any more"
    try:
        with ExitStack() as opened:
            record.request(opened)
    except (UsageError, ProgramError) as error:
        return f"cannot be made again: {error.problem}"
    return ""


def _copied(path: Path | None, name: str, build: bytes, version: str) -> ModuleFile:
    """A module with a copy of its file beside the journal.

    Raises:
        ModuleError: it cannot be copied.
    """
    if path is None:
        return ModuleFile(build.hex(), version)
    directory = JOURNAL.parent / name
    try:
        make_private(JOURNAL.parent)
        make_private(directory)
        copy = builds.copied(path, directory)
    except ProgramError as error:
        raise ModuleError(error.problem, error.remedy) from None
    except OSError as error:
        raise ModuleError(f"cannot copy {path} to {directory}: {os_reason(error)}") from None
    return ModuleFile(build.hex(), version, str(copy), str(path))


def _called(link: Link) -> str:
    return link.name or str(link.id)


def _names(records: Sequence[LinkRecord]) -> str:
    return ", ".join(_called(record.link) for record in records) or "-"
