# SPDX-License-Identifier: GPL-2.0
"""Tracers of other tools, each with the kernel interface that these tools use.

A tracer is a context manager that gives a function to read its counts: the hits of each function
that it counts separately, or of all together.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.kernel.support import bpf_tracers, drop_monitor, loader, perf
from tests.kernel.support.bpf_tracers import Counts
from tests.kernel.support.kernel import MODULE

Functions = Mapping[str, str | None]

#: functions that are redirected or watched for links, each with its module
FUNCTIONS: Functions = {
    "nf_hook_slow": None,
    "nft_do_chain": "nf_tables",
    "ipt_do_table": "ip_tables",
    "ip6t_do_table": "ip6_tables",
    "nf_log_trace": None,
    "trace_tg": "xt_TRACE",
    "nf_dup_ipv4": "nf_dup_ipv4",
    "nf_dup_ipv6": "nf_dup_ipv6",
    # for journeys
    "skb_release_head_state": None,
    "kfree_skbmem": None,
    "__copy_skb_header": None,
    "sk_filter_trim_cap": None,
}
#: those that BPF trampolines can attach to: not those with a variable number of arguments
_TYPED: Functions = {k: v for k, v in FUNCTIONS.items() if k != "nf_log_trace"}

#: those that journeys have probes at, and that of packets which were not dropped
_TRACEPOINTS = ("kfree_skb", "net_dev_start_xmit", "netif_receive_skb", "consume_skb")

_TRACING = Path("/sys/kernel/tracing")
_STACK_TRACER = Path("/proc/sys/kernel/stack_tracer_enabled")
_GROUP = "others"


@dataclass(frozen=True)
class Tracer:
    """``missing`` gives the reason why the running kernel cannot have the tracer, or nothing."""

    name: str
    start: Callable[[], AbstractContextManager[Counts]]
    missing: Callable[[], str] = lambda: ""


def hooked_functions() -> list[str]:
    """Functions with ftrace handlers, each with their number, and probes of ``kprobe_events``."""
    lines = (_TRACING / "enabled_functions").read_text().splitlines()
    # the rest of the line also tells of former handlers
    hooked = [" ".join(line.split()[:2]) for line in lines]
    return hooked + (_TRACING / "kprobe_events").read_text().splitlines()


def _nothing_counted() -> dict[str, int]:
    return {}


def _functions() -> Functions:
    return FUNCTIONS


def _own_functions() -> Functions:
    """The functions of the module under test that can be traced."""
    lines = (_TRACING / "available_filter_functions").read_text().splitlines()
    names = Counter(line.split()[0] for line in lines if line.endswith(f"[{MODULE}]"))
    # of functions with the same name the kernel could not tell which one is meant
    return {name: MODULE for name, functions in names.items() if functions == 1}


@contextmanager
def _kprobe_events(kind: str, choose: Callable[[], Functions], *, exact: bool) -> Iterator[Counts]:
    """Probes, ``p`` or ``r``, of functions, as perf probe and trace-cmd make them.

    Where counts are ``exact``, no probe may have missed a hit.
    """
    functions = choose()
    assert functions
    lines = [
        f"{kind}:{_GROUP}/{name.replace('.', '_')} {module + ':' if module else ''}{name}"
        for name, module in functions.items()
    ]
    events, switch = _TRACING / "kprobe_events", _TRACING / "events" / _GROUP / "enable"

    def hits() -> dict[str, int]:
        profile = [x.split() for x in (_TRACING / "kprobe_profile").read_text().splitlines()]
        missed = {name: misses for name, _, misses in profile if misses != "0"}
        assert not (exact and missed), f"missed: {missed}"
        fired = {name: int(number) for name, number, _ in profile}
        return fired if exact else {"in all": sum(fired.values())}

    try:
        events.write_text("\n".join(lines) + "\n")
        switch.write_text("1")
        yield hits
    finally:
        if switch.exists():
            switch.write_text("0")
        events.write_text("")
        _empty_buffer()


def _empty_buffer() -> None:
    (_TRACING / "trace").write_text("")


@contextmanager
def _current_tracer(tracer: str, functions: Iterable[str] = ()) -> Iterator[Counts]:
    """One of ftrace's own tracers, for all functions or for some, which are then counted."""
    chosen = tuple(functions)

    def calls() -> dict[str, int]:
        trace = (_TRACING / "trace").read_text()
        return {
            name: len(re.findall(rf"\b{name}\b(?: \[\w+\])?(?:\(\)| <-)", trace)) for name in chosen
        }

    _empty_buffer()
    (_TRACING / "set_ftrace_filter").write_text("\n".join(chosen) + "\n")
    (_TRACING / "current_tracer").write_text(tracer)
    try:
        yield calls if chosen else _nothing_counted
    finally:
        (_TRACING / "current_tracer").write_text("nop")
        (_TRACING / "set_ftrace_filter").write_text("\n")
        _empty_buffer()


@contextmanager
def _stack_tracer() -> Iterator[Counts]:
    _STACK_TRACER.write_text("1")
    try:
        yield _nothing_counted
    finally:
        _STACK_TRACER.write_text("0")


@contextmanager
def _tracepoints(*systems: str) -> Iterator[Counts]:
    """All tracepoints of some systems on every CPU, as perf trace and perf stat use them."""
    ids = [path for system in systems for path in _TRACING.glob(f"events/{system}/*/id")]
    assert len(ids) > len(systems)
    with ExitStack() as stack:
        events = [
            stack.enter_context(perf.tracepoint(int(path.read_text()), cpu))
            for path in ids
            for cpu in sorted(os.sched_getaffinity(0))
        ]
        yield lambda: {f"{len(ids)} tracepoints": sum(map(perf.count, events))}


def _of_ftrace(tracer: str) -> tuple[Tracer, Tracer]:
    def missing() -> str:
        there = tracer in (_TRACING / "available_tracers").read_text().split()
        return "" if there else f"this kernel has no {tracer} tracer"

    some = partial(_current_tracer, tracer, FUNCTIONS)
    return (
        Tracer(f"{tracer} tracer", partial(_current_tracer, tracer), missing),
        Tracer(f"{tracer} tracer, filtered", some, missing),
    )


def _no_stack_tracer() -> str:
    return "" if _STACK_TRACER.exists() else "this kernel has no stack tracer"


def _tracefs_probe(kind: str, name: str) -> tuple[Tracer, Tracer]:
    others = partial(_kprobe_events, kind, _functions, exact=True)
    # inside one of its handlers, ftrace skips further calls
    own = partial(_kprobe_events, kind, _own_functions, exact=False)
    return Tracer(name, others), Tracer(f"{name} on the module's functions", own)


def _bpf_probe(prefix: str, *, at_return: bool) -> tuple[Tracer, Tracer]:
    some = partial(bpf_tracers.kprobes, FUNCTIONS, at_return=at_return)
    many = partial(bpf_tracers.kprobe_multi, at_return=at_return)
    return (
        Tracer(f"BPF {prefix}", some),
        Tracer(f"BPF {prefix}.multi", many, bpf_tracers.no_kprobe_multi),
    )


def _trampoline(name: str, attach_type: int) -> Tracer:
    start = partial(bpf_tracers.trampolines, _TYPED, attach_type)
    return Tracer(f"BPF {name}", start, bpf_tracers.no_module_types)


TRACERS = (
    *_tracefs_probe("p", "kprobe"),
    *_tracefs_probe("r", "kretprobe"),
    *_bpf_probe("kprobe", at_return=False),
    *_bpf_probe("kretprobe", at_return=True),
    _trampoline("fentry", loader.TRACE_FENTRY),
    _trampoline("fexit", loader.TRACE_FEXIT),
    *_of_ftrace("function"),
    *_of_ftrace("function_graph"),
    Tracer("stack tracer", _stack_tracer, _no_stack_tracer),
    Tracer("perf tracepoints", partial(_tracepoints, "skb", "net")),
    Tracer("BPF tracepoints", partial(bpf_tracers.raw_tracepoints, *_TRACEPOINTS)),
    Tracer("drop monitor", drop_monitor.drop_monitor, drop_monitor.missing),
)
