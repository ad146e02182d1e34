# SPDX-License-Identifier: GPL-2.0
"""A program of the system run with little: in a network namespace, with few rights and limits.

A thread of its own enters the namespace, gives up rights, starts the program and ends. Namespace,
capabilities and no_new_privs belong to a thread, and a child process gets those of the thread that
starts it. So nothing of ours runs between fork and exec, which would not be safe beside other
threads, and our memory is not copied.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import selectors
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.bpf import tools
from ipttctl.bpf.descriptors import ClosedError, Owned
from ipttctl.bpf.private_dirs import check_private
from ipttctl.errors import ProgramError, os_reason
from ipttctl.system.netns import within

CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION: Final = 0x20080522
_MOST_CAPABILITIES: Final = 64
_CHUNK: Final = 1 << 16
_MOST_COMPLAINT: Final = 4096
_GRACE: Final = 2.0
_STOPPED: Final = "listing was stopped"


@dataclass(frozen=True)
class Bounds:
    """Limits of what a program may use."""

    seconds: float = 5.0
    """Time on the clock; then it is killed."""
    cpu_seconds: int = 5
    memory: int = 1 << 30
    """Bytes of address space."""
    output: int = 64 << 20
    """Bytes of output."""


class ListingError(Exception):
    """A program does not list rules; the text says why."""


def program(name: str) -> str:
    """The file of a program, which nobody but root can have written.

    Raises:
        ListingError: there is none, or somebody else could have.
    """
    path = tools.find(name)
    if path is None:
        raise ListingError(f"{name} is not installed")
    try:
        check_private(Path(path), follow=True)
    except ProgramError as error:
        raise ListingError(f"{name} is not trusted: {error}") from None
    except OSError as error:
        raise ListingError(f"{name} is not trusted: {os_reason(error)}") from None
    return path


def run(
    name: str,
    arguments: Sequence[str],
    namespace: int,
    *,
    capabilities: Sequence[int] = (CAP_NET_ADMIN,),
    bounds: Bounds | None = None,
    stop: Owned[int] | None = None,
) -> bytes:
    """Run a program to its end inside the network namespace behind a descriptor; its output.

    It gets the ``capabilities`` only and can gain no other, an environment without our variables,
    and no descriptor of ours. It is killed at the end of its time, when ``stop`` is readable, and
    when we are.

    Raises:
        ListingError: it is not there or not trusted, fails, or exceeds its bounds.
    """
    bounds = bounds or Bounds()
    command = [*_limited(bounds), *_until_we_end(), program(name), *arguments]

    def confined() -> bytes:
        _give_up_all_but(capabilities)
        return _to_its_end(name, command, bounds, stop)

    try:
        return within(namespace, confined)
    except ClosedError:
        raise ListingError(_STOPPED) from None
    except OSError as error:
        raise ListingError(f"{name} cannot be run: {os_reason(error)}") from None


def _limited(bounds: Bounds) -> list[str]:
    """The program that sets the limits of another one before that begins.

    Without it they are set once the other one is there, which may have taken more by then.
    """
    try:
        file = program("prlimit")
    except ListingError:
        return []
    limits = (f"--cpu={bounds.cpu_seconds}", f"--as={bounds.memory}", "--core=0", "--fsize=0")
    return [file, *limits, "--"]


def _until_we_end() -> list[str]:
    """The program that has the kernel kill another one when the thread that started it ends."""
    try:
        return [program("setpriv"), "--pdeathsig", "KILL", "--"]
    except ListingError:
        return []


def _give_up_all_but(capabilities: Sequence[int]) -> None:
    """Leave this thread, and what it starts, with some capabilities."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)

    def prctl(option: int, argument: int, value: int = 0) -> int:
        words = (ctypes.c_ulong(argument), ctypes.c_ulong(value), zero, zero)
        return 0 if libc.prctl(option, *words) == 0 else ctypes.get_errno()

    for capability in range(_MOST_CAPABILITIES):
        if capability in capabilities:
            continue
        failure = prctl(_PR_CAPBSET_DROP, capability)
        if failure == errno.EINVAL:
            break  # the kernel knows no more
    if failure := prctl(_PR_SET_NO_NEW_PRIVS, 1):
        raise OSError(failure, os.strerror(failure))
    kept = sum(1 << capability for capability in capabilities)
    # effective, permitted, inheritable, of the lower 32 capabilities, then of the upper
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    data = struct.pack("=6I", kept, kept, kept, 0, 0, 0)
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if libc.capset(header, data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for capability in capabilities:
        # needed where we are not root; elsewhere it changes nothing
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _to_its_end(
    name: str, command: Sequence[str], bounds: Bounds, stop: Owned[int] | None
) -> bytes:
    deadline = time.monotonic() + bounds.seconds
    with _no_signal_blocked():
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"LC_ALL": "C"},
            start_new_session=True,
        )
    try:
        _limit(child.pid, bounds)
        with ExitStack() as stack:
            stopped = stack.enter_context(stop) if stop else None
            output, complaint = _read(name, child, bounds.output, deadline, stopped)
        status = child.wait(_GRACE)
    finally:
        _kill(child)
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    if status:
        raise ListingError(f"{name} {_ending(status)}{_reason(complaint)}")
    return output


@contextmanager
def _no_signal_blocked() -> Iterator[None]:
    """Block no signals in this thread: a program that it starts would block them too."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _limit(pid: int, bounds: Bounds) -> None:
    limits = {
        resource.RLIMIT_CPU: bounds.cpu_seconds,
        resource.RLIMIT_AS: bounds.memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for limit, value in limits.items():
        with suppress(ProcessLookupError):
            resource.prlimit(pid, limit, (value, value))


def _read(
    name: str,
    child: subprocess.Popen[bytes],
    most: int,
    deadline: float,
    stopped: int | None,
) -> tuple[bytes, bytes]:
    """The output of a program until its end, and the beginning of its complaints."""
    assert child.stdout is not None
    assert child.stderr is not None
    outputs = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    complaint = outputs[child.stderr.fileno()]
    with selectors.DefaultSelector() as selector, _end_of(child) as end:
        waited = {*outputs, end}
        for descriptor in waited | ({stopped} if stopped is not None else set()):
            selector.register(descriptor, selectors.EVENT_READ)
        while waited:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ListingError(f"{name} takes too long")
            for key, _ in selector.select(left):
                if key.fd == stopped:
                    raise ListingError(_STOPPED)
                chunk = os.read(key.fd, _CHUNK) if key.fd in outputs else b""
                if not chunk:
                    selector.unregister(key.fd)
                    waited.discard(key.fd)
                elif outputs[key.fd] is not complaint or len(complaint) < _MOST_COMPLAINT:
                    outputs[key.fd] += chunk
                    if len(outputs[key.fd]) > most:
                        raise ListingError(f"{name} writes more than {most} bytes")
    return bytes(outputs[child.stdout.fileno()]), bytes(complaint)


@contextmanager
def _end_of(child: subprocess.Popen[bytes]) -> Iterator[int]:
    """A descriptor that is readable when a child has ended."""
    descriptor = os.pidfd_open(child.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child, and those that it started and that are still in its session."""
    if child.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)


def _ending(status: int) -> str:
    if status > 0:
        return f"fails with status {status}"
    try:
        return f"is killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"is killed by signal {-status}"


def _reason(complaint: bytes) -> str:
    lines = complaint.decode(errors="surrogateescape").strip().splitlines()
    return f": {lines[0][:200]}" if lines else ""
