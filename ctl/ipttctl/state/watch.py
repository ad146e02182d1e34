# SPDX-License-Identifier: GPL-2.0
"""Keep the host at a declared state: look for drift, tell it, mend it.

Changes of links are told by the module, and looked at when they come. Nothing tells of contents of
maps, files of programs, and namespaces and devices that come back: these are looked at every few
seconds. A link whose last swap waits to be confirmed is left alone until it does not wait any more.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ipttctl.bpf.descriptors import ClosedError, Owned, owned_descriptor
from ipttctl.errors import (
    IpttctlError,
    KernelError,
    LinkGoneError,
    ModuleError,
    PlaceMissingError,
    PrivilegeError,
    os_reason,
)
from ipttctl.link.controller import Controller
from ipttctl.link.model import LinkChange, LinkList
from ipttctl.link.watch import LinkWatch
from ipttctl.link.wire import wait_readable
from ipttctl.state.apply import apply_locked, planned
from ipttctl.state.file import DeclaredFile
from ipttctl.state.journal import RECORD, LockedError, locked
from ipttctl.state.model import State, Step, StepAction, Terms
from ipttctl.state.option_files import STANDARD_INPUT
from ipttctl.state.pace import Pace
from ipttctl.state.plan import Plan
from ipttctl.state.undo import NotUndoneError
from ipttctl.system.host_identity import module_life
from ipttctl.system.inherited import Inherited
from ipttctl.system.service_manager import ServiceManager
from ipttproto import Action

EVERY: Final = 10.0
"""Seconds between two looks at what nobody tells of."""

_SOON: Final = 1.0
#: seconds between two attempts to get the lock of whoever applies, and until it is told
_LOCK: Final = 0.2
_LONG: Final = 2.0
#: seconds that a module which is loaded may take until it answers
_LOADING: Final = 30.0
_SECONDS: Final = re.compile(r"\d+ s\b")


@dataclass(frozen=True)
class Callbacks:
    """Functions that a watch calls: ``tell`` with a sentence, ``done`` with its steps.

    ``connected`` is called with each new controller, ``prepare`` before a state is applied; if it
    takes long, it calls ``StateWatch.alive`` now and then.
    """

    tell: Callable[[str], None]
    done: Callable[[Sequence[Step]], None]
    connected: Callable[[Controller], None] = lambda _: None
    prepare: Callable[[Controller, State], None] = lambda *_: None
    on_compile: Callable[[], None] | None = None


class StateWatch:
    """A host that is kept as a file declares it, from ``run`` until ``stop``.

    ``stop`` and ``reread`` may be called from other threads and signal handlers.
    """

    def __init__(
        self,
        file: str,
        terms: Terms,
        callbacks: Callbacks,
        *,
        inherited: Inherited | None = None,
        every: float = EVERY,
        record: Path = RECORD,
        reason: str | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        """Read the file.

        Raises:
            UsageError: it cannot be read, or is no object of links.
        """
        self._file = file
        self._inherited = inherited or Inherited.now()
        self._terms = replace(terms, patient=True)
        self._call = callbacks
        self._every = every
        self._record = record
        self._reason = reason
        self._manager = manager or ServiceManager()
        self._wake: Owned[int] = owned_descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._stopped = self._reread = False
        self._pace = Pace()
        self._ready = False
        # the file was read, and not looked at since: what differs then is no drift
        self._fresh = True
        self._told: set[str] = set()
        self._error = self._status = ""
        # why the file of now is not the one that is declared
        self._invalid = ""
        # it was told that programs are compiled, and they did not all compile since
        self._compiled = False
        self._stamp: tuple[int, ...] = ()
        self._names: set[str] = set()
        self._links: set[int] = set()
        # of links that were as declared at the last look
        self._generations: dict[int, int] = {}
        self._absent: set[str] = set()
        self._waits = False
        self._beat = 0.0
        # the last look ended as a link went
        self._went = False
        # since when another process has the lock, and what was told of it
        self._locked: float | None = None
        self._locked_by = ""
        self._declared = self._read()

    def stop(self) -> None:
        """End ``run`` after the step that is being taken; the links stay."""
        self._stopped = True
        self._awake()

    def reread(self) -> None:
        """Have the file read again."""
        self._reread = True
        self._awake()

    def run(self) -> None:
        """Keep the host at the declared state until ``stop``.

        Raises:
            IpttctlError: the state could not be established in the first place, the caller may not
                do it any more, or the module that is loaded is not ours.
            Exception: a callback raised it; what was mended then stays so.
        """
        try:
            while not self._stopped:
                with suppress(_UnloadedError):
                    self._follow()
        finally:
            self._manager.tell("STOPPING=1")
            self._wake.close()

    # --- connections ------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Follow one life of the module.

        Raises:
            _UnloadedError: it has ended.
        """
        controller = self._connect()
        if controller is None:
            return
        with controller, self._while_loaded(), controller.watch_links() as watch:
            self._call.connected(controller)
            look, due = True, 0.0
            while not self._stopped:
                self._heartbeat()
                if self._reread:
                    self._reload()
                    look = True
                look |= time.monotonic() >= due
                if look and not self._pace.left:
                    pause = self._look(controller)
                    look, due = False, time.monotonic() + pause
                left = self._pace.left if look else due - time.monotonic()
                look |= self._await(watch, max(left, 0.01))

    @contextmanager
    def _while_loaded(self) -> Iterator[None]:
        """Turn the end of the module, once the state was established, into _UnloadedError."""
        try:
            yield
        except ModuleError as error:
            if not self._ready:
                raise
            self._links.clear()
            self._generations.clear()
            self._say_status(f"{error.problem}: waiting for it to be loaded")
            self._call.tell(f"{error.problem}; waiting for it to be loaded")
            raise _UnloadedError from None

    def _connect(self) -> Controller | None:
        """A connection to the module, once it is loaded; None if the watch is stopped before.

        Raises:
            ModuleError: the module is not loaded at the beginning, or does not answer or speaks
                another protocol.
        """
        loaded = None
        while not self._stopped:
            try:
                return Controller()
            except ModuleError:
                if not self._ready:
                    raise
                if module_life() is None:
                    loaded = None
                elif loaded is None:
                    loaded = time.monotonic()
                elif time.monotonic() - loaded > _LOADING:
                    raise
            self._heartbeat()
            self._sleep([], _SOON)
        return None

    def _await(self, watch: LinkWatch, timeout: float) -> bool:
        """Wait for changes, signals or the end of the time; whether there is something to look at.

        Changes of links that are not declared are none.
        """
        self._sleep([watch.fileno()], timeout)
        try:
            # the second time it says if the module has gone
            items = watch.read(0) or watch.read(0)
        except KernelError:
            # changes were lost, and the links change faster than they can be listed
            return True
        return any(self._concerns(item) for item in items)

    def _concerns(self, item: LinkList | LinkChange) -> bool:
        if isinstance(item, LinkList):
            return True
        return item.link.id in self._links or item.link.name in self._names

    def _sleep(self, descriptors: Iterable[int], timeout: float) -> None:
        interval = self._manager.interval
        if interval is not None:
            timeout = min(timeout, interval / 2)
        with self._wake as wake:
            if wake in wait_readable([wake, *descriptors], timeout):
                os.eventfd_read(wake)

    def _awake(self) -> None:
        with suppress(ClosedError), self._wake as wake:
            os.eventfd_write(wake, 1)

    def _heartbeat(self) -> None:
        """Tell the service manager that we are alive, twice as often as it wants."""
        interval = self._manager.interval
        if interval is not None and time.monotonic() - self._beat >= interval / 4:
            self._beat = time.monotonic()
            self._manager.tell("WATCHDOG=1")

    def _compiling(self) -> None:
        self._manager.tell("WATCHDOG=1")
        if self._call.on_compile and not self._compiled:
            self._call.on_compile()
        self._compiled = True

    # --- the file ---------------------------------------------------------------------------------

    def _read(self) -> DeclaredFile:
        # that of before: what is written meanwhile has changed
        self._stamp = self._file_stamp()
        declared = DeclaredFile.read(self._file, self._inherited)
        declared.state({})
        return declared

    def _file_stamp(self) -> tuple[int, ...]:
        with suppress(OSError):
            found = Path(self._file).stat()
            return found.st_ino, found.st_mtime_ns, found.st_size
        return ()

    def _reload(self) -> None:
        """Read the file again; if it is not valid, what it was before stays declared."""
        self._reread = False
        if self._ready:
            self._manager.reloading()
        if self._file == STANDARD_INPUT:
            self._call.tell("standard input cannot be read again")
        else:
            try:
                self._declared = self._read()
                self._pace, self._fresh = Pace(), True
                self._invalid, self._compiled = "", False
                self._call.tell(f"{self._file} is read again")
            except IpttctlError as error:
                self._invalid = f"the state of before stays, as {self._file} is not valid: {error}"
                self._call.tell(f"{error}; the state of before stays declared")
            self._manager.tell(status=self._whole_status())
        if self._ready:
            # the reload has ended, well or not; a start would not have ended
            self._manager.tell("READY=1")

    # --- looking and mending ----------------------------------------------------------------------

    def _interval(self) -> float:
        return min(self._every, _SOON) if self._absent or self._waits else self._every

    def _look(self, controller: Controller) -> float:
        """Compare the host with the file, and mend what differs.

        Returns the seconds until the next look, if nothing happens before.

        Raises:
            IpttctlError: it is the first time, and cannot be done.
            ModuleError, PrivilegeError: it will not be possible any more.
        """
        try:
            with locked(self._record, wait=False):
                self._locked, self._locked_by = None, ""
                steps = self._mend(controller)
        except LockedError as error:
            self._wait_for(error)
            return _LOCK
        except KeyboardInterrupt:
            # a signal, by which steps were undone; it has been noted
            return self._interval()
        except PrivilegeError:
            raise
        except OSError as error:
            if not self._ready and not self._stopped:
                raise
            return self._missed(controller, error, os_reason(error))
        except IpttctlError as error:
            # what went after it was looked up is missing at the next look
            went = isinstance(error, PlaceMissingError | LinkGoneError)
            if not self._ready and not self._stopped and not went:
                raise
            return self._missed(controller, error, str(error))
        self._went = False
        if steps:
            # no failure of ours if it cannot be told
            self._call.done(steps)
        return self._interval()

    def _missed(self, controller: Controller, error: Exception, why: str) -> float:
        """Tell why the host is not as declared; returns the seconds until the next look.

        Raises:
            ModuleError: the module has gone.
        """
        if self._stopped:
            # a tool that the same signal ended is no news; what is half done is
            if isinstance(error, NotUndoneError):
                self._call.tell(why)
            return 0.0
        first, self._went = not self._went, isinstance(error, LinkGoneError)
        if first and self._went:
            # somebody detached it after the links were listed
            return _LOCK
        if isinstance(error, ModuleError):
            # this raises it again if the module has gone
            controller.status()
        self._failed(why)
        went = isinstance(error, PlaceMissingError)
        return min(self._every, _SOON) if went else self._interval()

    def alive(self) -> None:
        """Tell the service manager so, amid something long that a callback does.

        Raises:
            KeyboardInterrupt: the watch is to end.
        """
        self._heartbeat()
        if self._stopped:
            raise KeyboardInterrupt

    def _wait_for(self, error: LockedError) -> None:
        """Tell who has the lock, once and if that lasts; the next look tries it again."""
        now = time.monotonic()
        if self._locked is None:
            self._locked = now
        elif now - self._locked >= _LONG:
            self._say_status(f"{error}: waiting for its end")
            if self._locked_by != str(error):
                self._locked_by = str(error)
                self._call.tell(f"{error}; waiting for its end")

    def _failed(self, why: str) -> None:
        self._say_status(f"not as declared: {why}")
        if why != self._error:
            self._error = why
            self._call.tell(f"not as declared, and tried again: {why}")

    def _mend(self, controller: Controller) -> list[Step]:
        """Take the steps that are needed, and return them."""
        absent: dict[str, PlaceMissingError] = {}
        state = self._declared.state(absent)
        told: list[str] = []
        plan: Plan | None = None
        try:
            plan, steps = planned(
                controller,
                state,
                self._terms,
                self._record,
                on_compile=self._compiling,
                warn=told.append,
            )
            self._waits = any(match.waits for match in plan.matches)
            self._tell_absent(absent)
            if self._file != STANDARD_INPUT and self._file_stamp() != self._stamp:
                told.append(f"{self._file} has changed; SIGHUP has it read again")
            self._tell_new(told)
            if steps:
                self._pace.attempted()
                if not self._fresh:
                    for sentence in _causes(controller, steps, self._generations):
                        self._call.tell(sentence)
                if self._pace.left > _SOON:
                    self._call.tell(
                        "this happens again and again: it is mended now, and not again before "
                        f"{self._pace.left:.0f} s have passed"
                    )
                self._call.prepare(controller, state)
                steps = apply_locked(
                    controller,
                    state,
                    terms=self._terms,
                    record=self._record,
                    on_compile=self._compiling,
                    reason=self._reason,
                )
            self._error, self._fresh, self._compiled = "", False, False
        finally:
            for link in state.links:
                link.hook.release()
        self._names = {str(name) for name in self._declared.links}
        self._links = {match.link.id for match in plan.matches if match.link}
        same = (match for match in plan.matches if match.kept and not match.left)
        self._generations = {one.link.id: one.link.generation for one in same if one.link}
        self._links |= {step.link for step in steps if step.link is not None}
        self._links |= {one.link.id for one in plan.adopted}
        left = [match.declared.name for match in plan.matches if match.left]
        self._tell_ready(len(state.links) - len(left), left)
        return steps

    def _tell_ready(self, count: int, left: Sequence[str]) -> None:
        status = f"links as declared: {count}"
        if self._waits:
            status = "a swap waits to be confirmed; the rest is as declared"
        if left:
            status += f"; left alone: {', '.join(left)}"
        if self._absent:
            status += f"; missing their place: {', '.join(sorted(self._absent))}"
        if not self._ready:
            self._ready = True
            self._manager.tell("READY=1")
        self._say_status(status)

    def _say_status(self, status: str) -> None:
        if status != self._status:
            self._status = status
            self._manager.tell(status=self._whole_status())

    def _whole_status(self) -> str:
        return "; ".join(text for text in (self._status, self._invalid) if text)

    def _tell_absent(self, absent: dict[str, PlaceMissingError]) -> None:
        for name, error in absent.items():
            if name not in self._absent:
                self._call.tell(f"{error.problem}; waiting for it")
        self._absent = set(absent)

    def _tell_new(self, sentences: Iterable[str]) -> None:
        """Tell what was not so at the last look; that seconds pass is nothing new."""
        keys = {_SECONDS.sub("", sentence): sentence for sentence in sentences}
        for key, sentence in keys.items():
            if key not in self._told:
                self._call.tell(sentence)
        self._told = set(keys)


class _UnloadedError(Exception):
    """The module was unloaded; another life of it may follow."""


#: what became of a link, for which the history names a process unless the module did it by itself
_DONE: Final[Mapping[int, str]] = {
    Action.SWAP: "was swapped",
    Action.ROLLBACK: "was rolled back by the module, as nobody confirmed its swap in time",
    Action.ROLLBACK_REQUEST: "was rolled back",
    Action.ROLLBACK_GUARD: "was rolled back by the module, as a guard did not hold",
    Action.PROMOTE: "was given the programs of its shadow",
    Action.PROMOTE_IF: "was given the programs of its shadow by the module, as agreed on",
}


def _causes(
    controller: Controller, steps: Iterable[Step], generations: Mapping[int, int]
) -> Iterator[str]:
    """Sentences on what somebody did, by the steps that undo it.

    ``generations`` are those in which links were as declared.
    """
    maps: set[str] = set()
    for step in steps:
        match step.action:
            case StepAction.ATTACH:
                yield f"{step.name}: there is no such link"
            case StepAction.SWAP:
                link = step.link or 0
                yield f"{step.name}: link {link} {_swapped(controller, link, generations)}"
            case StepAction.RENAME:
                yield f"{step.name}: link {step.link} has another name"
            case StepAction.DETACH:
                yield f"{step.name or '-'}: link {step.link} is not declared, or not at its place"
            case StepAction.SET | StepAction.DELETE:
                maps.add(f"{step.name}/{step.map}")
            case _:
                pass
    yield from (f"{name}: the map does not hold what is declared" for name in sorted(maps))


def _swapped(controller: Controller, link: int, generations: Mapping[int, int]) -> str:
    with suppress(LinkGoneError):
        last = controller.history(link)[-1]
        did = _DONE.get(last.action)
        # otherwise a program's file is another one, or the swap is our own
        if did and last.generation != generations.get(link) and last.pid != os.getpid():
            return f"{did} by process {last.pid} ({last.comm})" if last.pid else did
    return "is not as declared"
