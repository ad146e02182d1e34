# SPDX-License-Identifier: GPL-2.0
"""BPF programs from any source, as objects that own a file descriptor."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from ipttctl.bpf import syscalls
from ipttctl.bpf.descriptors import ClosedError, Closing, owned_descriptor
from ipttctl.bpf.processes import foreign_descriptor
from ipttctl.errors import ProgramError


class Program(Closing):
    """A loaded BPF program that owns a descriptor: close it, or use it as a context manager.

    Closing does not unload a program that is pinned or held by a link.
    """

    def __init__(self, fd: int) -> None:
        """Take ownership of ``fd``, which must be a program's; see the class methods."""
        self._descriptor = owned_descriptor(fd)
        self._info: syscalls.LoadedProgram | None = None

    @classmethod
    def from_fd(cls, fd: int) -> Self:
        """A program that this process has open already; the descriptor is duplicated.

        Raises:
            ProgramError: the descriptor is not open, or is not a program's.
        """
        _check_program(fd, f"fd {fd}")
        return cls(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))

    @classmethod
    def from_pinned(cls, path: str | os.PathLike[str]) -> Self:
        """A program that is pinned in a BPF file system.

        Raises:
            ProgramError: no program is pinned there, or no such file system is mounted.
        """
        place = Path(path)
        fd = syscalls.open_pinned(place)
        try:
            _check_program(fd, str(place))
        except ProgramError:
            os.close(fd)
            raise
        return cls(fd)

    @classmethod
    def from_id(cls, identifier: int) -> Self:
        """A loaded program by its id, as bpftool shows it.

        Raises:
            ProgramError: there is no program with this id.
            PrivilegeError: the caller may not (CAP_SYS_ADMIN).
        """
        return cls(syscalls.program_by_id(identifier))

    @classmethod
    def from_tag(cls, tag: str) -> Self:
        """The only loaded program with a tag (16 hex digits).

        Raises:
            ProgramError: no program has it, or several; the message lists their ids.
            PrivilegeError: the caller may not (CAP_SYS_ADMIN).
        """
        with ExitStack() as found:
            matching: list[Self] = []
            for identifier in syscalls.programs():
                with suppress(ProgramError):  # unloaded meanwhile
                    program = cls.from_id(identifier)
                    if program.tag == tag:
                        found.callback(program.close)
                        matching.append(program)
                    else:
                        program.close()
            if len(matching) == 1:
                found.pop_all()
                return matching[0]
            if not matching:
                raise ProgramError(f"no loaded program has tag {tag}", "see: bpftool prog")
            ids = ", ".join(str(program.id) for program in matching)
            raise ProgramError(f"programs {ids} have tag {tag}", "take one by its id")

    @classmethod
    def from_process(cls, pid: int, fd: int) -> Self:
        """A program that another process has open as ``fd``.

        Raises:
            ProgramError: there is no such process, it ends meanwhile, or its descriptor is not
                open or not a program's.
            PrivilegeError: the caller may not access the process (PTRACE_MODE_ATTACH).
        """
        copy = foreign_descriptor(pid, fd)
        try:
            _check_program(copy, f"fd {fd} of process {pid}")
        except ProgramError:
            os.close(copy)
            raise
        return cls(copy)

    @classmethod
    def load(
        cls,
        instructions: bytes,
        *,
        name: str,
        type: syscalls.ProgramType = syscalls.ProgramType.KPROBE,  # noqa: A002 - as the kernel calls it
        license_name: str = "GPL",
    ) -> Self:
        """Verify and load bytecode whose maps are resolved to descriptors.

        Raises:
            ProgramError: the verifier refuses the program.
            PrivilegeError: the caller may not load programs.
        """
        return cls(syscalls.load_program(type, name, instructions, license_name))

    @property
    def fd(self) -> int:
        """The descriptor; the program keeps ownership.

        Raises:
            ProgramError: the program is closed.
        """
        try:
            with self._descriptor as fd:
                return fd
        except ClosedError:
            raise ProgramError("the program is closed") from None

    @property
    def id(self) -> int:
        """The program's id in the kernel."""
        return self._kernel_info().id

    @property
    def tag(self) -> str:
        """The kernel's hash of the instructions, in hex."""
        return self._kernel_info().tag

    @property
    def name(self) -> str:
        """The program's name in the kernel, at most 15 characters."""
        return self._kernel_info().name

    @property
    def type(self) -> str:
        """The program's type as bpftool names it, such as ``kprobe``."""
        return self._kernel_info().type

    def maps(self) -> list[int]:
        """The ids of the maps that the program uses."""
        return syscalls.program_maps(self.fd)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin the program in a BPF file system, so that it stays loaded.

        Raises:
            ProgramError: the path exists, or is not in a mounted BPF file system.
        """
        syscalls.pin(self.fd, Path(path))

    def close(self) -> None:
        """Close the descriptor. Closing more than once does no harm."""
        self._descriptor.close()

    def _kernel_info(self) -> syscalls.LoadedProgram:
        if self._info is None:
            self._info = syscalls.program_info(self.fd)
        return self._info

    def __repr__(self) -> str:
        if self._descriptor.closed:
            return "<Program, closed>"
        return f"<Program {self.name} id={self.id} type={self.type} fd={self.fd}>"


def _check_program(fd: int, called: str) -> None:
    kind = syscalls.object_kind(fd)
    if kind != syscalls.ObjectKind.PROGRAM:
        raise ProgramError(f"{called} is not a BPF program but {kind}", "see: bpftool prog")
