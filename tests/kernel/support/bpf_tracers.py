# SPDX-License-Identifier: GPL-2.0
"""BPF programs of other tools at functions and tracepoints; each counts its runs.

Each tracer is a context manager that gives a function to read the counts.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.kernel.support import assembler as asm
from tests.kernel.support import kernel_btf, loader, perf
from tests.kernel.support.kernel import MODULE
from tests.kernel.support.maps import element, one_element_map

Counts = Callable[[], dict[str, int]]

_TRACING = Path("/sys/kernel/tracing")
LINK_CREATE = 28
_MULTI_RETURN = 1
#: modules whose functions are all taken for packet functions
_PACKET_MODULES = frozenset(
    {
        "ip_tables",
        "ip6_tables",
        "iptable_filter",
        "ip6table_filter",
        "nf_tables",
        "xt_TEE",
        "xt_TRACE",
        MODULE,
    }
)

#: a helper call with four or five arguments leaves these registers changed
_SCRATCH = asm.mov(asm.R4, -1) + asm.mov(asm.R5, -1)


def _reading(counters: Mapping[str, int]) -> Counts:
    return lambda: {name: element(counter) for name, counter in counters.items()}


@contextmanager
def kprobes(functions: Mapping[str, str | None], *, at_return: bool) -> Iterator[Counts]:
    """Programs at perf's kprobes, as bpftrace and bcc attach them."""
    counters = {}
    with ExitStack() as stack:
        for name in functions:
            counters[name] = stack.enter_context(one_element_map())
            code = asm.counting(counters[name], 0)
            program = stack.enter_context(loader.loaded(code))
            stack.enter_context(perf.program_at_kprobe(program, name, at_return=at_return))
        yield _reading(counters)


@contextmanager
def trampolines(functions: Mapping[str, str | None], attach_type: int) -> Iterator[Counts]:
    """Programs at fentry or fexit, as bpftrace attaches them for kfunc and kretfunc."""
    counters = {}
    with ExitStack() as stack:
        for name, module in functions.items():
            counters[name] = stack.enter_context(one_element_map())
            program = loader.loaded(
                _SCRATCH + asm.counting(counters[name], 0),
                loader.TRACING,
                attach_type=attach_type,
                attach_btf_id=kernel_btf.function_type(name, module),
                attach_program=stack.enter_context(kernel_btf.module_types(module)),
            )
            stack.enter_context(loader.attached(stack.enter_context(program)))
        yield _reading(counters)


def no_module_types() -> str:
    """The reason why trampolines cannot be at module functions; empty if they can."""
    there = Path("/sys/kernel/btf/ip_tables").exists()
    return "" if there else "this kernel has no types of modules (CONFIG_DEBUG_INFO_BTF_MODULES)"


@contextmanager
def raw_tracepoints(*names: str) -> Iterator[Counts]:
    """Programs at tracepoints."""
    counters = {}
    with ExitStack() as stack:
        for name in names:
            counters[name] = stack.enter_context(one_element_map())
            code = asm.counting(counters[name], 0)
            program = stack.enter_context(loader.loaded(code, loader.RAW_TRACEPOINT))
            stack.enter_context(loader.attached(program, name))
        yield _reading(counters)


def no_kprobe_multi() -> str:
    """The reason why the kernel has no kprobe.multi; empty if it has."""
    symbols = (line.split()[2] for line in Path("/proc/kallsyms").read_text().splitlines())
    return "" if "register_fprobe_ips" in symbols else "this kernel has no fprobes (CONFIG_FPROBE)"


def _packet_functions() -> list[int]:
    """The addresses of the kernel's functions that take a packet, and of all of some modules'."""
    wanted = kernel_btf.kernel_functions_taking("sk_buff")
    addresses = []
    for line in (_TRACING / "available_filter_functions_addrs").read_text().splitlines():
        address, name, *module = line.split()
        if module[0].strip("[]") in _PACKET_MODULES if module else name in wanted:
            addresses.append(int(address, 16))
    return addresses


@contextmanager
def kprobe_multi(*, at_return: bool) -> Iterator[Counts]:
    """One program at every function that takes a packet, as in pwru."""
    addresses = _packet_functions()
    table = (ctypes.c_uint64 * len(addresses))(*addresses)
    kind = loader.TRACE_KPROBE_MULTI
    with (
        one_element_map() as counter,
        loader.loaded(asm.counting(counter, 0), attach_type=kind) as program,
    ):
        # struct link_create of union bpf_attr, with kprobe_multi
        request = struct.pack(
            "=IIIIIIQQQ",
            program, 0, kind, 0,
            _MULTI_RETURN if at_return else 0, len(table), 0, ctypes.addressof(table), 0,
        )  # fmt: skip  # pairs together
        link = loader.bpf(LINK_CREATE, request)
        try:
            yield lambda: {f"{len(table)} functions": element(counter)}
        finally:
            os.close(link)
