# SPDX-License-Identifier: GPL-2.0
"""The programs of ``ipttctl trace``, loaded with its options and pinned for the next time."""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl import families
from ipttctl.bpf import syscalls
from ipttctl.bpf.collection import Collection, CollectionSpec
from ipttctl.bpf.private_dirs import check_private, make_private
from ipttctl.bpf.programs import Program
from ipttctl.errors import ProgramError, UsageError, os_reason
from ipttctl.paths import module_directory, object_file, programs_directory
from ipttproto import Slot

PIN_ROOT: Final = Path("/sys/fs/bpf/ipttrace")
"""Directory of programs pinned for the next trace in the same boot."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PINS_KEPT: Final = 8
"""Number of program sets kept there; the least recently used are removed first."""

MOST_SNAPLEN: Final = 248
"""Most bytes of a packet that an event has room for."""

_SLOTS: Final = {
    Slot.ENTRY: "trace_entry",
    Slot.RULE: "trace_rule",
    Slot.EXIT: "trace_exit",
    Slot.FUNCTION: "trace_function",
    Slot.STEP: "trace_step",
}
_NAME: Final = "trace"
_CAPTURE: Final = "capture"
_CAPTURE_FUNCTION: Final = "capture_function"
_CAPTURE_EXIT: Final = "capture_exit"
_CAPTURE_MAP: Final = "captures"
_PREFIX: Final = "trace-"
_TEMPORARY: Final = "tmp-"

# Bits of the constant `want` in bpf/trace.c.
_WANT_PID: Final = 1
_WANT_NETNS: Final = 2
_WANT_ADDRESS: Final = 4
_WANT_PROTOCOL: Final = 8
_WANT_PORT: Final = 16
_WANT_ICMP_ID: Final = 32
_WANT_FAMILY: Final = 64


@dataclass(frozen=True)
class TraceOptions:
    """Conditions on the packets to trace; None is any. All that are given have to hold."""

    address: Address | Network | None = None
    """Address at either end; a network stands for all of its addresses."""
    protocol: int | None = None
    """Transport protocol; in IPv6, the one after the extension headers."""
    port: int | None = None
    """Port at either end, of TCP, UDP, UDP-Lite, SCTP or DCCP."""
    icmp_id: int | None = None
    """Identifier of an ICMP or ICMPv6 echo."""
    pid: int | None = None
    """Process (tgid) that sends the packet."""
    netns: int | None = None
    """Cookie of the network namespace."""
    family: int | None = None
    """Family of the hooks (NFPROTO_*): packets of that IP version."""

    def constants(self) -> dict[str, int]:
        """The constants of bpf/trace.c.

        Raises:
            UsageError: a number is out of its range.
        """
        options = (
            ("pid", self.pid, _WANT_PID, 1, 0xFFFFFFFF),
            ("netns", self.netns, _WANT_NETNS, 1, 0xFFFFFFFFFFFFFFFF),
            ("protocol", self.protocol, _WANT_PROTOCOL, 0, 0xFF),
            ("port", self.port, _WANT_PORT, 0, 0xFFFF),
            ("icmp_id", self.icmp_id, _WANT_ICMP_ID, 0, 0xFFFF),
            ("family", self.family, _WANT_FAMILY, 0, 0xFF),
        )
        constants = {"want": 0}
        for name, value, bit, low, high in options:
            if value is None:
                continue
            if not low <= value <= high:
                raise UsageError(f"{name} {value} is not between {low} and {high}")
            constants["want"] |= bit
            constants[f"want_{name}"] = value
        if self.address is not None:
            constants["want"] |= _WANT_ADDRESS
            constants["want_address_pf"] = int(families.IP[self.address.version])
            network = _network(self.address)
            for name, part in (("address", network.network_address), ("mask", network.netmask)):
                wire = part.packed.ljust(16, b"\0")
                constants[f"want_{name}_high"] = int.from_bytes(wire[:8], sys.byteorder)
                constants[f"want_{name}_low"] = int.from_bytes(wire[8:], sys.byteorder)
        return constants


def _network(address: Address | Network) -> Network:
    """A network, or the network of one address alone. A zone (``%eth0``) is ignored."""
    if isinstance(address, Address):
        return ipaddress.ip_network(address.packed)
    return address


def load_trace_programs(
    options: TraceOptions,
    *,
    on_compile: Callable[[], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    pin_root: Path = PIN_ROOT,
) -> dict[Slot, Program]:
    """Load the programs of ``trace``, or open those pinned by an equal trace in this boot.

    Concurrent processes take turns: the second finds the pins of the first. If nothing can be
    pinned (no BPF file system is mounted), ``on_warning`` is called.

    Args:
        options: which packets to trace.
        on_compile: called before a compilation, which takes seconds.
        on_warning: called with a sentence about a failure that does no harm.
        pin_root: directory of the pins.

    Raises:
        UsageError: an option is out of its range.
        ProgramError: the programs cannot be found, compiled or loaded.
        PrivilegeError: the caller may not load programs.
    """
    constants = options.constants()
    if reason := _cannot_pin(pin_root):
        if on_warning:
            on_warning(f"the programs are not kept for the next trace: {reason}")
        return _load(own_spec(constants, on_compile), None)
    with _turn(pin_root):
        spec = own_spec(constants, on_compile)
        identity = spec.content() + repr(sorted(constants.items())).encode()
        place = pin_root / (_PREFIX + hashlib.sha256(identity).hexdigest()[:16])
        programs = _open_pins(place)
        if programs is None:
            programs = _load(spec, place)
        _forget_old(pin_root, keep=place)
    return programs


@dataclass(frozen=True)
class Capture:
    """The programs at the spine that keep the first bytes of packets, and the map with these."""

    collection: Collection

    @property
    def function(self) -> int:
        """The descriptor of the program for the slot of functions."""
        return self.collection.programs[_CAPTURE_FUNCTION].fd

    @property
    def exit(self) -> int:
        """The descriptor of the program for the slot of exits."""
        return self.collection.programs[_CAPTURE_EXIT].fd

    @property
    def payload(self) -> int:
        """The descriptor of the map."""
        return self.collection.maps[_CAPTURE_MAP].fd

    def close(self) -> None:
        """Close all; links that have them keep them."""
        self.collection.close()


def load_capture(snaplen: int, *, on_compile: Callable[[], None] | None = None) -> Capture:
    """Load the programs that keep ``snaplen`` bytes of packets.

    Raises:
        UsageError: these are too many or too few.
        ProgramError: they cannot be found, compiled or loaded.
        PrivilegeError: the caller may not load programs.
    """
    if not 1 <= snaplen <= MOST_SNAPLEN:
        raise UsageError(f"snaplen {snaplen} is not between 1 and {MOST_SNAPLEN}")
    spec = own_spec({"snaplen": snaplen}, on_compile, _CAPTURE)
    return Capture(Collection.load(spec, programs=[_CAPTURE_FUNCTION, _CAPTURE_EXIT]))


def remove_trace_pins(pin_root: Path = PIN_ROOT) -> int:
    """Remove all pinned programs of ``trace``; returns the number of sets."""
    if not pin_root.is_dir():
        return 0
    with _turn(pin_root):
        places = [place for place in pin_root.iterdir() if place.name.startswith(_PREFIX)]
        for place in places:
            shutil.rmtree(place)
    return len(places)


def own_spec(
    constants: dict[str, int], on_compile: Callable[[], None] | None, name: str = _NAME
) -> CollectionSpec:
    """Our programs with constants set: as they come with the package, or compiled here."""
    prebuilt = object_file(f"{name}.o")
    if prebuilt.is_file():
        spec = CollectionSpec.from_object(prebuilt)
    else:
        spec = _compile(on_compile, name)
    spec.set_constants(constants)
    return spec


def _compile(on_compile: Callable[[], None] | None, name: str) -> CollectionSpec:
    """The programs, compiled now or before."""
    source = programs_directory() / f"{name}.c"
    if not source.is_file():
        raise ProgramError(f"the BPF source {source} is missing", "install ipttctl again")
    include = [module_directory()]
    return CollectionSpec.from_source(source, include=include, on_compile=on_compile)


def _load(spec: CollectionSpec, place: Path | None) -> dict[Slot, Program]:
    collection = Collection.load(spec, programs=list(_SLOTS.values()))
    try:
        if place is not None:
            collection.pin(place)
    except BaseException:
        collection.close()
        raise
    return {slot: collection.programs[name] for slot, name in _SLOTS.items()}


def _open_pins(place: Path) -> dict[Slot, Program] | None:
    """The programs pinned at a place, or None unless all of them are there."""
    if not place.is_dir():
        return None
    check_private(place)
    try:
        collection = Collection.open_pinned(place)
    except ProgramError:
        shutil.rmtree(place)
        return None
    if set(collection.programs) != set(_SLOTS.values()):
        collection.close()
        shutil.rmtree(place)
        return None
    os.utime(place)
    return {slot: collection.programs[name] for slot, name in _SLOTS.items()}


def _cannot_pin(pin_root: Path) -> str:
    """The reason why nothing can be pinned, empty if there is none; makes the directory."""
    if not syscalls.on_bpffs(pin_root):
        parent = pin_root.parent
        return f"no BPF file system at {parent}; run: mount -t bpf -o mode=0700 bpf {parent}"
    try:
        make_private(pin_root)
    except OSError as error:
        return f"{pin_root}: {os_reason(error)}"
    except ProgramError as error:
        return str(error)
    return ""


@contextmanager
def _turn(pin_root: Path) -> Iterator[None]:
    """Wait until no other process works on the pins. A process that dies ends its turn."""
    fd = os.open(pin_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _forget_old(pin_root: Path, keep: Path) -> None:
    """Remove excess sets, and the remains of processes that died during their turn."""
    sets = []
    for place in pin_root.iterdir():
        if place.name.startswith(_TEMPORARY):
            shutil.rmtree(place, ignore_errors=True)
        elif place.name.startswith(_PREFIX) and place != keep:
            with suppress(OSError):
                sets.append((place.stat().st_mtime_ns, place))
    for _, place in sorted(sets, reverse=True)[PINS_KEPT - 1 :]:
        shutil.rmtree(place, ignore_errors=True)
