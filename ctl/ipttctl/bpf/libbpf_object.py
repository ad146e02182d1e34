# SPDX-License-Identifier: GPL-2.0
"""Object files of ``clang -target bpf``: read and loaded with libbpf.

Plain values in, plain values and descriptors out. ``specs`` and ``collection`` build on them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from ipttctl.bpf.btf import Btf, Member
from ipttctl.bpf.libbpf import libbpf
from ipttctl.bpf.verifier_log import LOG_SIZE, refused_instruction, refused_line, verifier_reason
from ipttctl.errors import IpttctlError, PrivilegeError, ProgramError, VerifierError

#: sections of variables, whose initial values can be set
_VARIABLES: Final = (".rodata", ".data", ".bss")
_WARN: Final = 0
_TEXT_SIZE: Final = 4096
_PRINT_FUNCTION: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
)


@dataclass(frozen=True)
class ObjectProgram:
    """A program: its name, its section, and the type that libbpf infers from it (0: none)."""

    name: str
    section: str
    type: int


@dataclass(frozen=True)
class ObjectMap:
    """A map; ``pinned`` if its definition asks for pinning by name.

    ``key_type`` and ``value_type`` are type numbers in the file's BTF; 0 is none.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    pinned: bool
    key_type: int = 0
    value_type: int = 0


@dataclass(frozen=True)
class ObjectConstant:
    """A constant or variable: the map it lies in, its offset there, and its type."""

    map: str
    place: Member


@dataclass(frozen=True)
class ObjectContent:
    """The content of an object file."""

    programs: tuple[ObjectProgram, ...]
    maps: tuple[ObjectMap, ...]
    constants: Mapping[str, ObjectConstant]
    """The variables of .rodata, .data and .bss sections, by name."""
    btf: bytes = b""
    """The file's types; empty if it was compiled without -g."""


@dataclass(frozen=True)
class LoadPlan:
    """How to load an object file.

    ``programs``: the types of the programs to load. ``maps``: differences from the file, as
    (property, value), with the property named as in libbpf's setter. ``reused``: descriptors of
    maps that replace the file's. ``constants``: bytes to write at an offset of a map's initial
    content.
    """

    programs: Mapping[str, int]
    maps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reused: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """Descriptors by name; the caller closes them."""

    programs: dict[str, int]
    maps: dict[str, int]


def read(elf: bytes, name: str) -> ObjectContent:
    """Read the content of an object file; ``name`` is the file's, without directories.

    Raises:
        ProgramError: it is not an object file of BPF programs.
    """
    with _opened(elf, name) as obj, Btf(obj.types(), borrowed=True) as types:
        maps = tuple(obj.map_content(handle) for handle in obj.maps().values())
        programs = tuple(obj.program_content(handle) for handle in obj.programs().values())
        constants = {
            member.name: ObjectConstant(entry.name, member)
            for entry in maps
            if (section := _section(entry.name)).startswith(_VARIABLES)
            if (variables := types.section(section)) is not None
            for member in variables.members
        }
        described = types.data() if obj.types() else b""
    return ObjectContent(programs, maps, constants, described)


def load(elf: bytes, name: str, plan: LoadPlan) -> Loaded:
    """Create an object file's maps and load some of its programs, all or nothing.

    Raises:
        ProgramError: the kernel or libbpf refuses something.
        PrivilegeError: the caller may not load programs.
    """
    with _opened(elf, name) as obj:
        programs, maps = obj.programs(), obj.maps()
        logs = {wanted: ctypes.create_string_buffer(LOG_SIZE) for wanted in plan.programs}
        for called, handle in programs.items():
            obj.prepare_program(handle, plan.programs.get(called), logs.get(called))
        for called, handle in maps.items():
            obj.prepare_map(
                handle,
                plan.maps.get(called, {}),
                plan.reused.get(called),
                plan.constants.get(called, {}),
            )
        obj.load(logs)
        with ExitStack() as undo:

            def kept(function: str, handle: int) -> int:
                fd = fcntl.fcntl(obj.call(function, handle), fcntl.F_DUPFD_CLOEXEC, 0)
                undo.callback(os.close, fd)
                return fd

            loaded = Loaded(
                {n: kept("bpf_program__fd", programs[n]) for n in plan.programs},
                {n: kept("bpf_map__fd", handle) for n, handle in maps.items()},
            )
            undo.pop_all()
    return loaded


class _OpenOpts(ctypes.Structure):
    # The beginning of struct bpf_object_open_opts.
    _fields_ = (("sz", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


@cache
def _library() -> ctypes.CDLL:
    """Load libbpf, with the types of its functions for object files declared."""
    library = libbpf()
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
    size = ctypes.c_size_t
    library.bpf_object__open_mem.argtypes = (text, size, pointer)
    library.bpf_program__set_log_buf.argtypes = (pointer, pointer, size)
    library.bpf_program__set_autoload.argtypes = (pointer, ctypes.c_bool)
    library.bpf_map__initial_value.argtypes = (pointer, pointer)
    for names, result, arguments in (
        (("object__open_mem", "map__initial_value"), pointer, None),
        (("object__next_program", "object__next_map"), pointer, (pointer, pointer)),
        (("object__btf",), pointer, (pointer,)),
        (("object__close",), None, (pointer,)),
        (("program__name", "program__section_name", "map__name", "map__pin_path"), text, None),
        (("map__key_size", "map__value_size", "map__max_entries", "map__map_flags"), number, None),
        (("map__btf_key_type_id", "map__btf_value_type_id"), number, None),
        (("program__set_type", "map__reuse_fd"), ctypes.c_int, (pointer, ctypes.c_int)),
        (("map__set_type", "map__set_key_size"), ctypes.c_int, (pointer, number)),
        (("map__set_value_size", "map__set_max_entries"), ctypes.c_int, (pointer, number)),
        (("map__set_map_flags",), ctypes.c_int, (pointer, number)),
        (("map__set_pin_path",), ctypes.c_int, (pointer, text)),
    ):
        for name in names:
            function = getattr(library, f"bpf_{name}")
            function.restype = result
            if arguments:
                function.argtypes = arguments
    return library


class _Object:
    """An object file that libbpf has open."""

    def __init__(self, handle: int, name: str, warnings: list[str]) -> None:
        self._handle = handle
        self._name = name
        self._warnings = warnings

    def call(self, function: str, handle: int, *arguments: Any) -> Any:
        """Call libbpf on a program or map.

        Raises:
            ProgramError: libbpf refuses.
        """
        result = getattr(_library(), function)(ctypes.c_void_p(handle), *arguments)
        if isinstance(result, int) and result < 0:
            what = f"{self._name}: {function} ({os.strerror(-result)})"
            raise self.failure(f"cannot use object {what}", -result)
        return result

    def types(self) -> int:
        """The handle on the file's types; 0 if it has none."""
        return _library().bpf_object__btf(self._handle) or 0

    def programs(self) -> dict[str, int]:
        """The handles of programs by name."""
        return self._walk("bpf_object__next_program", "bpf_program__name")

    def maps(self) -> dict[str, int]:
        """The handles of maps by name."""
        return self._walk("bpf_object__next_map", "bpf_map__name")

    def program_content(self, handle: int) -> ObjectProgram:
        """A program as the file defines it."""
        return ObjectProgram(
            self.call("bpf_program__name", handle).decode(),
            self.call("bpf_program__section_name", handle).decode(),
            self.call("bpf_program__type", handle),
        )

    def map_content(self, handle: int) -> ObjectMap:
        """A map as the file defines it."""

        def told(name: str) -> int:
            return int(self.call(f"bpf_map__{name}", handle))

        return ObjectMap(
            self.call("bpf_map__name", handle).decode(),
            told("type"),
            told("key_size"),
            told("value_size"),
            told("max_entries"),
            told("map_flags"),
            pinned=bool(self.call("bpf_map__pin_path", handle)),
            key_type=told("btf_key_type_id"),
            value_type=told("btf_value_type_id"),
        )

    def prepare_program(
        self, handle: int, program_type: int | None, log: ctypes.Array[ctypes.c_char] | None
    ) -> None:
        """Set the type that a program is loaded as; None leaves the program out."""
        wanted = program_type is not None
        self.call("bpf_program__set_autoload", handle, wanted)
        if wanted:
            self.call("bpf_program__set_type", handle, program_type)
            self.call("bpf_program__set_log_buf", handle, log, LOG_SIZE)

    def prepare_map(
        self,
        handle: int,
        properties: Mapping[str, int],
        reused: int | None,
        content: Mapping[int, bytes],
    ) -> None:
        """Set how a map is created. Its pins are opened and made by us, not by libbpf."""
        self.call("bpf_map__set_pin_path", handle, None)
        if reused is not None:
            self.call("bpf_map__reuse_fd", handle, reused)
            return
        for what, value in properties.items():
            self.call(f"bpf_map__set_{what}", handle, value)
        if content:
            size = ctypes.c_size_t()
            start = self.call("bpf_map__initial_value", handle, ctypes.byref(size))
            for offset, data in content.items():
                if not start or offset + len(data) > size.value:
                    raise ProgramError(f"{self._name}: a constant lies outside its section")
                ctypes.memmove(start + offset, data, len(data))

    def load(self, logs: Mapping[str, ctypes.Array[ctypes.c_char]]) -> None:
        """Create the maps and load the programs.

        Raises:
            ProgramError: the kernel or libbpf refuses.
        """
        result = _library().bpf_object__load(ctypes.c_void_p(self._handle))
        if result == 0:
            return
        for name, log in logs.items():
            said = log.value.decode(errors="replace")
            if reason := verifier_reason(said):
                line = refused_line(said)
                raise VerifierError(
                    f"{name} of {self._name}",
                    reason,
                    refused_instruction(said),
                    f"the line is `{line}`"
                    if line
                    else f"the program has to change for kernel {os.uname().release}",
                )
        raise self.failure(f"cannot load object {self._name}", -result)

    def failure(self, action: str, number: int) -> IpttctlError:
        """An error for a failed action, in libbpf's words if it gave any."""
        if number == errno.EPERM:
            return PrivilegeError(
                f"{action}: not permitted", "run as root, or with CAP_BPF and CAP_PERFMON"
            )
        return ProgramError(f"{action}: {_reason(self._warnings, number)}")

    def _walk(self, following: str, naming: str) -> dict[str, int]:
        library = _library()
        found = {}
        entry = getattr(library, following)(self._handle, None)
        while entry:
            found[self.call(naming, entry).decode()] = entry
            entry = getattr(library, following)(self._handle, entry)
        return found


# libbpf has one printing function for the whole process.
_printing: Final = threading.Lock()


@contextmanager
def _opened(elf: bytes, name: str) -> Iterator[_Object]:
    library = _library()
    # the name libbpf would derive from the file; names of maps of variables begin with it
    options = _OpenOpts(ctypes.sizeof(_OpenOpts), os.fsencode(name.partition(".")[0]))
    with _printing, _collected_warnings() as warnings:
        handle = library.bpf_object__open_mem(elf, len(elf), ctypes.byref(options))
        if not handle:
            reason = _reason(warnings, ctypes.get_errno())
            raise ProgramError(
                f"{name} is not an object file of BPF programs: {reason}",
                "compile it with: clang -O2 -g -target bpf -c",
            )
        try:
            yield _Object(handle, name, warnings)
        finally:
            library.bpf_object__close(handle)


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings that libbpf would print."""
    library, libc = _library(), ctypes.CDLL(None)
    lines: list[str] = []

    def collect(level: int, form: bytes, arguments: int) -> int:
        if level == _WARN:
            text = ctypes.create_string_buffer(_TEXT_SIZE)
            libc.vsnprintf(text, ctypes.c_size_t(_TEXT_SIZE), form, ctypes.c_void_p(arguments))
            lines.append(text.value.decode(errors="replace").strip().removeprefix("libbpf: "))
        return 0

    function = _PRINT_FUNCTION(collect)
    library.libbpf_set_print(function)
    try:
        yield lines
    finally:
        library.libbpf_set_print(None)


def _reason(warnings: list[str], number: int) -> str:
    """The first warning, which gives the cause; the later ones give consequences."""
    return warnings[0] if warnings else _strerror(number)


def _strerror(number: int) -> str:
    buffer = ctypes.create_string_buffer(128)
    _library().libbpf_strerror(ctypes.c_int(number), buffer, ctypes.c_size_t(len(buffer)))
    return buffer.value.decode(errors="replace")


def _section(map_name: str) -> str:
    """The section behind a map of variables: ``.rodata`` for ``count.rodata``."""
    _, dot, rest = map_name.partition(".")
    return dot + rest
