# SPDX-License-Identifier: GPL-2.0
"""BPF objects of the kernel, through libbpf's system call wrappers: descriptors in and out.

Nothing here owns a descriptor: the caller closes those it gets. All failures raise
``ProgramError``, or ``PrivilegeError`` if a capability is missing.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from ipttctl.bpf.instructions import INSTRUCTION_SIZE
from ipttctl.bpf.libbpf import call, failure, libbpf
from ipttctl.bpf.verifier_log import LOG_SIZE, refused_instruction, verifier_reason
from ipttctl.errors import ProgramError, VerifierError

NAME_SIZE: Final = 16
"""Size of an object's name in the kernel in bytes, with its NUL (BPF_OBJ_NAME_LEN)."""

_BPF_FS_MAGIC: Final = 0xCAFE4A11
_STATS_RUN_TIME: Final = 0


class ProgramType(enum.IntEnum):
    """Program types that are loaded (enum bpf_prog_type)."""

    SOCKET_FILTER = 1
    KPROBE = 2


class MapType(enum.IntEnum):
    """Map types that need special treatment (enum bpf_map_type)."""

    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    PERCPU_CGROUP_STORAGE = 21


PER_CPU: Final = frozenset(
    {
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_CGROUP_STORAGE,
    }
)


class ObjectKind(enum.StrEnum):
    """Kinds of BPF objects behind descriptors, as the kernel names them in /proc."""

    PROGRAM = "bpf-prog"
    MAP = "bpf-map"
    LINK = "bpf_link"


@dataclass(frozen=True)
class LoadedProgram:
    """A loaded program as the kernel describes it."""

    id: int
    type: str
    tag: str
    name: str


@dataclass(frozen=True)
class MapInfo:
    """A map as the kernel describes it.

    ``btf`` is the id of the BTF that describes its keys and values, 0 if there is none.
    ``key_type`` and ``value_type`` are type numbers there; 0 is none.
    """

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf: int = 0
    key_type: int = 0
    value_type: int = 0


# --- structures of libbpf and of the kernel ------------------------------------------------------


class _ProgLoadOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
    )


class _MapCreateOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


class _ProgInfo(ctypes.Structure):
    # The beginning of struct bpf_prog_info; the kernel fills as much as there is room for.
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * NAME_SIZE),
    )


class _MapInfo(ctypes.Structure):
    # The beginning of struct bpf_map_info.
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * NAME_SIZE),
        ("ifindex", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
    )


# --- programs ------------------------------------------------------------------------------------


def load_program(
    program_type: ProgramType, name: str, instructions: bytes, license_name: str
) -> int:
    """Verify and load a program; returns its descriptor.

    Raises:
        ProgramError: the verifier refuses it; the message gives the reason.
        PrivilegeError: the caller may not load programs.
    """
    log = ctypes.create_string_buffer(LOG_SIZE)
    options = _ProgLoadOpts(sz=ctypes.sizeof(_ProgLoadOpts))
    # libbpf asks for the log only after a load without it has failed.
    options.log_buf = ctypes.addressof(log)
    options.log_size = LOG_SIZE
    fd = call(
        "bpf_prog_load",
        ctypes.c_int(program_type),
        name.encode()[: NAME_SIZE - 1],
        license_name.encode(),
        ctypes.create_string_buffer(instructions, len(instructions)),
        ctypes.c_size_t(len(instructions) // INSTRUCTION_SIZE),
        ctypes.byref(options),
    )
    if fd >= 0:
        return fd
    said = log.value.decode(errors="replace")
    reason = verifier_reason(said)
    if not reason:
        raise failure(f"cannot load program {name}", -fd)
    raise VerifierError(
        name,
        reason,
        refused_instruction(said),
        f"the program has to change for kernel {os.uname().release}",
    )


def program_by_id(identifier: int) -> int:
    """Open a loaded program by its id; returns a descriptor."""
    fd = call("bpf_prog_get_fd_by_id", ctypes.c_uint32(identifier))
    if fd == -errno.ENOENT:
        raise ProgramError(f"there is no BPF program with id {identifier}", "see: bpftool prog")
    if fd < 0:
        raise failure(f"cannot open program {identifier}", -fd, needs="CAP_SYS_ADMIN")
    return fd


def programs() -> Iterator[int]:
    """The ids of all loaded programs, ascending.

    Raises:
        PrivilegeError: the caller lacks CAP_SYS_ADMIN.
    """
    following = ctypes.c_uint32(0)
    while True:
        result = call("bpf_prog_get_next_id", following, ctypes.byref(following))
        if result == -errno.ENOENT:
            return
        if result < 0:
            raise failure("cannot list the loaded programs", -result, needs="CAP_SYS_ADMIN")
        yield following.value


def program_info(fd: int) -> LoadedProgram:
    """Describe the program behind a descriptor."""
    info = _ProgInfo()
    _read_info(fd, info)
    return LoadedProgram(info.id, program_type_name(info.type), bytes(info.tag).hex(), _text(info))


def program_maps(fd: int) -> list[int]:
    """The ids of the maps that the program behind a descriptor uses."""
    info = _ProgInfo()
    _read_info(fd, info)
    count = int(info.nr_map_ids)
    if not count:
        return []
    ids = (ctypes.c_uint32 * count)()
    info = _ProgInfo(nr_map_ids=count, map_ids=ctypes.addressof(ids))
    _read_info(fd, info)
    return list(ids)


def program_type_name(number: int) -> str:
    """A program type as bpftool names it, or its number if libbpf does not know it."""
    name: bytes | None = libbpf().libbpf_bpf_prog_type_str(ctypes.c_int(number))
    return name.decode() if name else str(number)


def enable_run_time() -> int:
    """Have the kernel measure the run time of all programs (BPF_ENABLE_STATS).

    Returns a descriptor. The kernel measures until the last such descriptor is closed.

    Raises:
        ProgramError: the kernel cannot do this.
        PrivilegeError: the caller lacks CAP_SYS_ADMIN.
    """
    fd = call("bpf_enable_stats", ctypes.c_int(_STATS_RUN_TIME))
    if fd < 0:
        raise failure("cannot have run times measured", -fd)
    return fd


# --- maps ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapTypes:
    """The types of a map's keys and values: a descriptor of BTF, and type numbers there."""

    fd: int
    key: int
    value: int


def create_map(
    name: str,
    *,
    map_type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int,
    types: MapTypes | None = None,
) -> int:
    """Create a map; returns its descriptor. ``types`` are dropped if its type takes none."""
    options = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=flags)
    if types:
        options.btf_fd = types.fd
        options.btf_key_type_id, options.btf_value_type_id = types.key, types.value

    def create() -> int:
        return call(
            "bpf_map_create",
            ctypes.c_int(map_type),
            name.encode()[: NAME_SIZE - 1],
            ctypes.c_uint32(key_size),
            ctypes.c_uint32(value_size),
            ctypes.c_uint32(max_entries),
            ctypes.byref(options),
        )

    fd = create()
    if fd < 0 and types:
        options.btf_fd = options.btf_key_type_id = options.btf_value_type_id = 0
        fd = create()
    if fd < 0:
        raise failure(f"cannot create map {name} with {max_entries} entries", -fd)
    return fd


def map_by_id(identifier: int) -> int:
    """Open a map by its id; returns a descriptor."""
    fd = call("bpf_map_get_fd_by_id", ctypes.c_uint32(identifier))
    if fd == -errno.ENOENT:
        raise ProgramError(f"there is no BPF map with id {identifier}", "see: bpftool map")
    if fd < 0:
        raise failure(f"cannot open map {identifier}", -fd, needs="CAP_SYS_ADMIN")
    return fd


def map_type_name(number: int) -> str:
    """A map type as bpftool names it, or its number if libbpf does not know it."""
    name: bytes | None = libbpf().libbpf_bpf_map_type_str(ctypes.c_int(number))
    return name.decode() if name else str(number)


def map_info(fd: int) -> MapInfo:
    """Describe the map behind a descriptor."""
    info = _MapInfo()
    _read_info(fd, info)
    return MapInfo(
        info.id,
        info.type,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.map_flags,
        _text(info),
        info.btf_id,
        info.btf_key_type_id,
        info.btf_value_type_id,
    )


def lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """A map's value for a key, of ``value_size`` bytes, or None."""
    value = ctypes.create_string_buffer(value_size)
    result = call("bpf_map_lookup_elem", fd, key, value)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure("cannot read from the map", -result)
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    """Set a map's value for a key."""
    result = call("bpf_map_update_elem", fd, key, value, ctypes.c_uint64(0))
    if result in {-errno.E2BIG, -errno.ENOSPC}:
        raise ProgramError("the map has no such index or is full", "raise its max_entries")
    if result == -errno.EPERM:
        require_writable(fd)
    if result < 0:
        raise failure("cannot write to the map", -result)


def delete(fd: int, key: bytes) -> bool:
    """Remove a key from a map; False if it was not there."""
    result = call("bpf_map_delete_elem", fd, key)
    if result == -errno.ENOENT:
        return False
    if result == -errno.EPERM:
        require_writable(fd)
    if result < 0:
        raise failure("cannot delete from the map", -result)
    return True


def require_writable(fd: int) -> None:
    """Check that a map can be written to, unlike a program's constants.

    Raises:
        ProgramError: the map is read-only.
    """
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if int(fields.get("frozen", "0")) == 1:
        raise ProgramError("the map is read-only (frozen)", "set its content before it is loaded")


def next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """The key after ``key`` (None asks for the first), or None at the end."""
    following = ctypes.create_string_buffer(key_size)
    result = call("bpf_map_get_next_key", fd, key, following)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure("cannot walk the map", -result)
    return following.raw


@cache
def possible_cpus() -> int:
    """The number of possible CPUs: each has its own part of a per-CPU value."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


# --- pins ----------------------------------------------------------------------------------------


def pin(fd: int, path: Path) -> None:
    """Pin an object in a BPF file system, so that it outlives its descriptors."""
    result = call("bpf_obj_pin", fd, os.fsencode(path))
    if result == 0:
        return
    if result == -errno.EEXIST:
        raise ProgramError(f"{path} exists already", "remove it or choose another path")
    if not on_bpffs(path.parent):
        raise _not_bpffs(path)
    if result == -errno.EPERM and "." in path.name:
        raise ProgramError(f"a name in a BPF file system cannot have a dot: {path}")
    raise failure(f"cannot pin to {path}", -result)


def open_pinned(path: Path) -> int:
    """Open a pinned object; returns a descriptor."""
    fd = call("bpf_obj_get", os.fsencode(path))
    if fd >= 0:
        return fd
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    if not on_bpffs(nearest):
        raise _not_bpffs(path)
    if fd == -errno.ENOENT:
        raise ProgramError(f"nothing is pinned at {path}", f"see: ls {path.parent}")
    raise failure(f"cannot open {path}", -fd, "it has to be a pinned program or map")


def on_bpffs(path: Path) -> bool:
    """Whether a path, which need not exist, lies in a mounted BPF file system."""
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(nearest), buffer) != 0:
        return False
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF == _BPF_FS_MAGIC


def _not_bpffs(path: Path) -> ProgramError:
    if path.is_relative_to("/sys/fs/bpf"):
        return ProgramError(
            "no BPF file system is mounted at /sys/fs/bpf",
            "run: mount -t bpf -o mode=0700 bpf /sys/fs/bpf",
        )
    return ProgramError(f"{path} is not in a BPF file system", "use a path below /sys/fs/bpf")


# --- any object ----------------------------------------------------------------------------------


def object_kind(fd: int) -> str:
    """The kind of file behind a descriptor: an ``ObjectKind``, or its name in /proc.

    Raises:
        ProgramError: no such descriptor is open in this process.
    """
    try:
        target = str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        raise ProgramError(
            f"fd {fd} is not open in this process",
            "leave it open for this command, as in: ipttctl ... 7</path or pass_fds=(7,)",
        ) from None
    if target.startswith("anon_inode:"):
        return target.removeprefix("anon_inode:").strip("[]")
    return target


def _read_info(fd: int, info: ctypes.Structure) -> None:
    size = ctypes.c_uint32(ctypes.sizeof(info))
    result = call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))
    if result < 0:
        raise failure(f"cannot ask about the BPF object behind fd {fd}", -result)


def _text(info: Any) -> str:
    name: bytes = info.name
    return name.decode(errors="replace")
