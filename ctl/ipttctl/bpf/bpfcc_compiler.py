# SPDX-License-Identifier: GPL-2.0
"""Compile a BPF source with bpfcc, in a process of its own.

Reads a JSON request (``text``, ``cflags``, ``debug``, ``parent``) from standard input. Writes JSON
to standard output: the programs' bytecode, the maps' definitions, and the files that were read in
addition to the source. clang's messages go to standard error; with ``debug`` bpfcc also prints
there the lines that instructions come from. The process ends with ``parent``, its caller.

A separate process keeps bpfcc's 100 MB of compiler and the maps that it creates out of the caller.
It may also run in the interpreter that has bpfcc, which need not be the caller's. Therefore it
imports nothing of ipttctl.

Exit status: 0 on success; 3 without bpfcc; 1 for any other failure.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

EXIT_NO_BPFCC = 3
#: A missing function would compile to a call that the verifier refuses: fail at once instead.
_CFLAGS = ("-Werror=implicit-function-declaration",)
#: prints the instructions and the lines of the source that they come from (bcc's debug flags)
_DEBUG_SOURCE = 8
#: from linux/prctl.h
_PR_SET_PDEATHSIG = 1

# Types that inline functions in new kernels' headers take the size of. bpfcc puts its own copy of
# linux/bpf.h before the kernel's, and an old bpfcc's does not have them.
_KERNEL_TYPES = (
    "bpf_dynptr",
    "bpf_iter_num",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
    "bpf_wq",
)


def _missing_types() -> str:
    """Definitions of the types that bpfcc's copy of linux/bpf.h, a text in its library, lacks."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    library = next(line.split()[-1] for line in maps if "/libbcc.so" in line)
    with (
        Path(library).open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content,
    ):
        return " ".join(
            f"struct {name} {{ unsigned long long opaque; }};"
            for name in _KERNEL_TYPES
            if content.find(f"\nstruct {name} {{".encode()) < 0
        )


def _read(rule: str) -> list[str]:
    """The files in the make rule that clang writes, except those in bpfcc's own library."""
    # make escapes blanks, "#" and "$" in names
    words = re.findall(r"(?:\\[ #]|[^\s])+", rule.replace("\\\n", " ").partition(":")[2])
    names = [re.sub(r"\\([ #])|\$(\$)", r"\1\2", word) for word in words]
    relative = [name for name in names if not name.startswith("/")]
    # bpfcc runs clang in the first of these that exists
    release = os.uname().release
    kernels = (
        os.environ.get("BCC_KERNEL_SOURCE", ""),
        f"/lib/modules/{release}/source",
        f"/lib/modules/{release}/build",
        f"/tmp/kheaders-{release}",  # the kernel's own, unpacked by bpfcc
    )
    here = next((k for k in kernels if k and all(Path(k, name).exists() for name in relative)), "")
    return [str(Path(here, name)) for name in names if not name.startswith("/virtual/")]


def _compile(source: bytes, cflags: list[str], debug: bool) -> dict[str, Any]:
    from bcc import BPF, lib  # noqa: PLC0415 - the caller wants to know if it is missing

    class Compiler(BPF):  # type: ignore[misc]  # bcc has no types
        """A compiler only: bpfcc would attach functions with certain names on its own."""

        def _trace_autoload(self) -> None:
            pass

    # bcc declares only those of its library's functions that it calls itself.
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    for function, result in (
        (lib.bpf_table_name, ctypes.c_char_p),
        (lib.bpf_table_fd_id, ctypes.c_int),
        (lib.bpf_table_key_size_id, ctypes.c_size_t),
        (lib.bpf_table_leaf_size_id, ctypes.c_size_t),
    ):
        function.restype = result
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    rule = os.memfd_create("rule")
    text = f"{_missing_types()}\n#line 1\n".encode() + source
    module = Compiler(
        text=text,
        cflags=[*cflags, *_CFLAGS, "-MD", "-MF", f"/proc/self/fd/{rule}"],
        debug=_DEBUG_SOURCE if debug else 0,
    )
    handle = module.module
    functions = [lib.bpf_function_name(handle, i) for i in range(lib.bpf_num_functions(handle))]
    count = lib.bpf_num_tables(handle)
    names = [lib.bpf_table_name(handle, i).decode() for i in range(count)]
    types = [_types(lib.bpf_table_fd_id(handle, i)) for i in range(count)]
    return {
        "license": lib.bpf_module_license(handle).decode(),
        "programs": {name.decode(): module.dump_func(name).hex() for name in functions},
        "btf": _btf(types),
        "read": _read(Path(f"/proc/self/fd/{rule}").read_text(errors="surrogateescape")),
        "maps": {
            name: {
                "fd": lib.bpf_table_fd_id(handle, i),
                "type": lib.bpf_table_type_id(handle, i),
                "key_size": lib.bpf_table_key_size_id(handle, i),
                "value_size": lib.bpf_table_leaf_size_id(handle, i),
                "max_entries": lib.bpf_table_max_entries_id(handle, i),
                "flags": lib.bpf_table_flags_id(handle, i),
                "key_type": types[i].btf_key_type_id,
                "value_type": types[i].btf_value_type_id,
            }
            for i, name in enumerate(names)
        },
    }


class _MapInfo(ctypes.Structure):
    """The head of struct bpf_map_info."""

    _fields_ = (
        ("head", ctypes.c_uint32 * 6),
        ("name", ctypes.c_char * 16),
        ("devices", ctypes.c_uint32 * 6),
        ("btf_id", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
    )


def _types(fd: int) -> _MapInfo:
    """The BTF ids of a map's types; all are 0 if bpfcc gave it none."""
    info = _MapInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    libbpf = ctypes.CDLL("libbpf.so.1")
    if libbpf.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)) != 0:
        return _MapInfo()
    return info


def _btf(types: list[_MapInfo]) -> str:
    """The types, which all maps share, in hex; empty if there are none."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    for name in ("btf__load_from_kernel_by_id", "btf__raw_data"):
        getattr(libbpf, name).restype = ctypes.c_void_p
    known = {info.btf_id for info in types if info.btf_id}
    handle = libbpf.btf__load_from_kernel_by_id(known.pop()) if len(known) == 1 else None
    if not handle:
        return ""
    size = ctypes.c_uint32()
    start = libbpf.btf__raw_data(ctypes.c_void_p(handle), ctypes.byref(size))
    # the handle ends with the process
    return ctypes.string_at(start, size.value).hex() if start else ""


def _end_with(parent: int) -> None:
    """End when the caller ends, in whatever way: nobody waits for the answer any more."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def main() -> int:
    """Compile the source in the request on standard input."""
    request = json.load(sys.stdin)
    _end_with(request["parent"])
    try:
        text = request["text"].encode(errors="surrogateescape")
        result = _compile(text, request["cflags"], request["debug"])
    except ImportError as error:
        print(error, file=sys.stderr)
        return EXIT_NO_BPFCC
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
