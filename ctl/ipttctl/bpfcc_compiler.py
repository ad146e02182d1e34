# SPDX-License-Identifier: GPL-2.0
"""Compiles a BPF source with bpfcc, in a process of its own.

Reads a JSON request (``source``, ``cflags``) from standard input and writes the programs' bytecode
and the maps' definitions as JSON to standard output; clang complains on standard error. In its own
process, so that neither bpfcc's 100 MB of compiler nor the maps it creates stay with the caller,
and so that it may run in another interpreter than the caller's, the one that has bpfcc. It
therefore imports nothing of ipttctl.

Exit status: 0; 3 without bpfcc; 1 for everything else.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
from pathlib import Path
from typing import Any

EXIT_NO_BPFCC = 3

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


def _compile(source: str, cflags: list[str]) -> dict[str, Any]:
    from bcc import BPF, lib  # noqa: PLC0415 - the caller wants to know if it is missing

    class Compiler(BPF):  # type: ignore[misc]  # bcc has no types
        """Compiles only: bpfcc would attach functions with certain names on its own."""

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

    text = Path(source).read_text()
    module = Compiler(text=f"{_missing_types()}\n#line 1\n{text}", cflags=cflags)
    handle = module.module
    functions = [lib.bpf_function_name(handle, i) for i in range(lib.bpf_num_functions(handle))]
    return {
        "license": lib.bpf_module_license(handle).decode(),
        "programs": {name.decode(): module.dump_func(name).hex() for name in functions},
        "maps": {
            lib.bpf_table_name(handle, i).decode(): {
                "fd": lib.bpf_table_fd_id(handle, i),
                "type": lib.bpf_table_type_id(handle, i),
                "key_size": lib.bpf_table_key_size_id(handle, i),
                "value_size": lib.bpf_table_leaf_size_id(handle, i),
                "max_entries": lib.bpf_table_max_entries_id(handle, i),
                "flags": lib.bpf_table_flags_id(handle, i),
            }
            for i in range(lib.bpf_num_tables(handle))
        },
    }


def main() -> int:
    """Compile what standard input asks for."""
    request = json.load(sys.stdin)
    try:
        result = _compile(request["source"], request["cflags"])
    except ImportError as error:
        print(error, file=sys.stderr)
        return EXIT_NO_BPFCC
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
