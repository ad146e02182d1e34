# SPDX-License-Identifier: GPL-2.0
"""Sources of a link's programs: each slot can have another kind.

    sources = {Slot.ENTRY: parse_source("pinned", "/sys/fs/bpf/x"), Slot.RULE: OfProcess(4711, 7)}
    with open_sources(sources) as fds:
        controller.attach(ProgramSet(fds))

Slots that name the same source or object file get programs of one collection, which share its maps.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

from ipttctl.bpf.collection import Collection, CollectionSpec
from ipttctl.bpf.constants import identity, missing, set_constants
from ipttctl.bpf.maps import Map
from ipttctl.bpf.programs import Program
from ipttctl.bpf.source_lines import line_of
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import ProgramError, UsageError, VerifierError
from ipttctl.numbers import U32_MAX, number
from ipttctl.paths import module_directory, programs_directory
from ipttctl.programs.digests import check_file, check_loaded
from ipttctl.programs.keep import KeptMaps
from ipttctl.system.inherited import Inherited
from ipttproto import Slot

_INT_MAX: Final = 0x7FFFFFFF
_TAG: Final = re.compile(r"[0-9a-f]{16}")

#: slot -> type of its programs, where it is not kprobe
_TYPES: Final[Mapping[Slot, str]] = {Slot.PACKET: "SOCKET_FILTER"}


@dataclass(frozen=True)
class OfDescriptor:
    """A program that this process has open; the descriptor stays its owner's."""

    fd: int


@dataclass(frozen=True)
class Pinned:
    """A program that is pinned in a BPF file system."""

    path: str


@dataclass(frozen=True)
class ById:
    """A loaded program by its id."""

    id: int


@dataclass(frozen=True)
class ByTag:
    """The only loaded program with a tag."""

    tag: str


@dataclass(frozen=True)
class OfProcess:
    """A program that another process has open."""

    pid: int
    fd: int


@dataclass(frozen=True)
class FromSource:
    """A function of a C file, compiled with bpfcc."""

    file: str
    function: str


@dataclass(frozen=True)
class FromObject:
    """A program of an object file, by its section or its name."""

    file: str
    section: str


ProgramSource = OfDescriptor | Pinned | ById | ByTag | OfProcess | FromSource | FromObject


def parse_source(kind: str, text: str) -> ProgramSource:
    """Parse a program source: ``kind`` is fd, pinned, id, tag, pid, source or object.

    Raises:
        UsageError: there is no such kind, or the text is not of its form.
    """
    parser = _PARSERS.get(kind)
    if parser is None:
        raise UsageError(f"there is no program source '{kind}'", f"there are: {', '.join(KINDS)}")
    return parser(text)


def check_inherited(source: ProgramSource, inherited: Inherited) -> None:
    """Check that a source names no descriptor of this process but those that it inherited.

    Raises:
        ProgramError: it does.
    """
    match source:
        case OfDescriptor(fd):
            inherited.check(fd)
        case OfProcess(pid, fd):
            inherited.check_process(pid, fd)
        case Pinned(path):
            inherited.check_path(path)
        case FromSource(file) | FromObject(file):
            inherited.check_path(file)
        case ById() | ByTag():
            pass


def source_text(source: ProgramSource) -> tuple[str, str]:
    """The kind and the text from which ``parse_source`` makes a source."""
    return _NAMES[type(source)], ":".join(str(part) for part in astuple(source))


def relative_to(directory: Path, source: ProgramSource) -> ProgramSource:
    """The same source, with a relative path, if it has one, resolved against a directory."""
    match source:
        case Pinned(path):
            return Pinned(str(directory / path))
        case FromSource(file, name):
            return FromSource(str(directory / file), name)
        case FromObject(file, name):
            return FromObject(str(directory / file), name)
        case _:
            return source


def is_file(source: ProgramSource) -> bool:
    """Whether a source is a file, whose programs have to be loaded."""
    return isinstance(source, FromSource | FromObject)


def source_digests(
    sources: Mapping[Slot, ProgramSource],
    constants: Mapping[str, Any] | None = None,
    *,
    on_compile: Callable[[], None] | None = None,
    expected: Mapping[Slot, str] | None = None,
) -> dict[Slot, str]:
    """Hashes, in hex, of the programs that would be loaded from files; nothing is loaded.

    Programs that are loaded with other ``constants`` have other hashes. ``expected`` are digests
    of the files (see ``programs.digests``).

    Raises:
        ProgramError: there is no such file, program or constant, it does not compile, or the file
            is not the expected one.
        UsageError: a constant's value does not fit its type.
    """
    digests = {}
    for file in _read_files(sources, constants or {}, on_compile, expected or {}):
        content = file.spec.content() + identity(file.spec)
        for slot, name in file.names.items():
            program = file.spec.find_program(name)
            digests[slot] = hashlib.sha256(content + os.fsencode(program)).hexdigest()
    return digests


def _fd(text: str) -> OfDescriptor:
    return OfDescriptor(number("fd", text, _INT_MAX))


def _id(text: str) -> ById:
    return ById(number("id", text, U32_MAX))


def _tag(text: str) -> ByTag:
    if not _TAG.fullmatch(text.lower()):
        raise UsageError(f"'{text}' is not a program's tag", "it has 16 hex digits: bpftool prog")
    return ByTag(text.lower())


def _process(text: str) -> OfProcess:
    pid, colon, fd = text.partition(":")
    if not colon:
        raise UsageError(f"'{text}' is not PID:FD")
    return OfProcess(number("pid", pid, _INT_MAX, 1), number("fd", fd, _INT_MAX))


def _source(text: str) -> FromSource:
    return FromSource(*_in_file(text, "FUNCTION"))


def _object(text: str) -> FromObject:
    return FromObject(*_in_file(text, "SECTION"))


def _in_file(text: str, what: str) -> tuple[str, str]:
    file, colon, name = text.rpartition(":")
    if not colon or not file or not name:
        raise UsageError(f"'{text}' is not FILE:{what}")
    return file, name


_PARSERS: Final[Mapping[str, Callable[[str], ProgramSource]]] = {
    "fd": _fd,
    "pinned": Pinned,
    "id": _id,
    "tag": _tag,
    "pid": _process,
    "source": _source,
    "object": _object,
}

_NAMES: Final = {
    OfDescriptor: "fd",
    Pinned: "pinned",
    ById: "id",
    ByTag: "tag",
    OfProcess: "pid",
    FromSource: "source",
    FromObject: "object",
}

KINDS: Final = tuple(_PARSERS)
"""The kinds of sources that ``parse_source`` knows."""


def program_type(slot: Slot) -> ProgramType:
    """The program type that a slot takes."""
    return ProgramType[_TYPES.get(slot, "KPROBE")]


@contextmanager
def open_sources(
    sources: Mapping[Slot, ProgramSource],
    *,
    on_compile: Callable[[], None] | None = None,
    constants: Mapping[str, Any] | None = None,
    keep: KeptMaps | None = None,
    expected: Mapping[Slot, str] | None = None,
) -> Iterator[dict[Slot, int]]:
    """Open the programs; yields descriptors by slot, closed at the end of the block.

    Args:
        sources: the source of each slot's program.
        on_compile: called before a compilation, which takes seconds.
        constants: values of constants by name, for the programs of all files that have them.
        keep: maps of a link that the programs of files are loaded with.
        expected: digests of programs by slot (see ``programs.digests``).

    Raises:
        ProgramError: there is no such program or constant, it does not compile or load, it is not
            the expected one, or a map cannot be kept.
        UsageError: a constant's value does not fit its type.
        PrivilegeError: the caller may not open or load it.
    """
    # before we open any: a program of ours must not get the number of one that is missing
    inherited = Inherited.now()
    for source in sources.values():
        check_inherited(source, inherited)
    with ExitStack() as stack:
        fds: dict[Slot, int] = {}
        for slot, source in sources.items():
            match source:
                case OfDescriptor(fd):
                    fds[slot] = fd
                case FromSource() | FromObject():
                    continue
                case _:
                    fds[slot] = _opened(source, stack)
            check_loaded(slot, fds[slot], expected or {})
            if keep:
                keep.check_loaded(slot, _NAMES[type(source)], fds[slot])
        files = _read_files(sources, constants or {}, on_compile, expected or {})
        kept = [
            keep.of_file(file.spec, file.name, file.names.keys()) if keep else {} for file in files
        ]
        if keep:
            keep.finish()
        for file, maps in zip(files, kept, strict=True):
            try:
                fds |= _loaded(file, maps, stack)
            except VerifierError as error:
                raise (_in_source(file.name, error) if file.kind is FromSource else error) from None
        yield dict(sorted(fds.items()))


@dataclass(frozen=True)
class _File:
    """A file with programs: its spec, and the names of programs by slot."""

    kind: type
    name: str
    spec: CollectionSpec
    names: Mapping[Slot, str]


def _read_files(
    sources: Mapping[Slot, ProgramSource],
    constants: Mapping[str, Any],
    on_compile: Callable[[], None] | None,
    expected: Mapping[Slot, str],
) -> list[_File]:
    """Read the files among the sources, each once, and set the constants in all that have them.

    Raises:
        ProgramError: a file cannot be read, is not the expected one, or no file has one of the
            constants.
        UsageError: a constant's value does not fit its type.
    """
    by_file: dict[tuple[type, str], dict[Slot, str]] = {}
    for slot, source in sources.items():
        if isinstance(source, FromSource | FromObject):
            file, name = astuple(source)
            by_file.setdefault((type(source), file), {})[slot] = name
    if constants and not by_file:
        raise ProgramError(
            f"constant {next(iter(constants))} cannot be set: the programs are loaded already",
            "give their --source or --object",
        )
    files = [
        _File(
            kind,
            name,
            _read(kind, name, on_compile, {s: d for s, d in expected.items() if s in names}),
            names,
        )
        for (kind, name), names in by_file.items()
    ]
    specs = [file.spec for file in files]
    for name in constants:
        if not any(name in spec.constants for spec in specs):
            raise missing(specs, name)
    for spec in specs:
        set_constants(spec, {n: value for n, value in constants.items() if n in spec.constants})
    return files


def _opened(source: Pinned | ById | ByTag | OfProcess, stack: ExitStack) -> int:
    match source:
        case Pinned(path):
            program = Program.from_pinned(path)
        case ById(identifier):
            program = Program.from_id(identifier)
        case ByTag(tag):
            program = Program.from_tag(tag)
        case OfProcess(pid, fd):
            program = Program.from_process(pid, fd)
    return stack.enter_context(program).fd


def _read(
    kind: type, file: str, on_compile: Callable[[], None] | None, expected: Mapping[Slot, str]
) -> CollectionSpec:
    if kind is FromObject:
        spec = CollectionSpec.from_object(file)
        check_file(file, expected, spec.content())
        return spec
    # before and after: the compiler reads the file itself
    check_file(file, expected)
    spec = CollectionSpec.from_source(file, include=_include(), on_compile=on_compile)
    check_file(file, expected)
    return spec


def _include() -> list[Path]:
    """The directories of ipttrace.h and of the headers it includes."""
    return [programs_directory(), module_directory()]


def _in_source(file: str, error: VerifierError) -> VerifierError:
    """A verifier error, extended with the source line that was refused."""
    line = None
    if error.instruction is not None:
        line = line_of(Path(file), _include(), error.program, error.instruction)
    remedy = f"the line is `{line.text}`" if line else error.remedy
    where = f"{file}:{line.number}" if line else file
    return VerifierError(error.program, error.reason, error.instruction, remedy, where)


def _loaded(file: _File, maps: Mapping[str, Map], stack: ExitStack) -> dict[Slot, int]:
    """Load the programs that slots name, as one collection."""
    try:
        found = {slot: file.spec.find_program(name) for slot, name in file.names.items()}
        types = {name: program_type(slot) for slot, name in found.items()}
        collection = stack.enter_context(Collection.load(file.spec, programs=types, maps=maps))
    except VerifierError:
        raise
    except ProgramError as error:
        if Path(file.name).name in error.problem:
            raise
        raise ProgramError(f"{file.name}: {error.problem}", error.remedy) from None
    return {slot: collection.programs[name].fd for slot, name in found.items()}
