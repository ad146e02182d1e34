# SPDX-License-Identifier: GPL-2.0
"""Programs that only look right: refused at attach with a sentence, or by the verifier."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from ipttctl.errors import KernelError
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS, NfMode, Slot
from tests.kernel.support import assembler as asm
from tests.kernel.support import loader
from tests.kernel.support.btf import GLOBAL, Types
from tests.kernel.support.kernel import kernel_version, redirected_functions
from tests.kernel.support.loader import LoadError, loaded, loaded_btf, map_of_maps, typed_map
from tests.kernel.support.maps import PROG_ARRAY, SOCKMAP, one_element_map

ARRAY, SOCKHASH = 2, 18


def _plain(program_type: int, *, flags: int = 0, attach_type: int = 0, value: int = 0) -> Load:
    code = asm.returning(value)
    return lambda: loaded(code, program_type, flags=flags, attach_type=attach_type)


def _for_kernel_function(
    program_type: int, attach_type: int, name: str, code: bytes | None = None
) -> Load:
    """A program for a function of the kernel."""

    def load() -> AbstractContextManager[int]:
        return loaded(
            code or asm.returning(0),
            program_type,
            attach_type=attach_type,
            attach_btf_id=loader.kernel_type(name, attach_type),
        )

    return load


def _struct_ops() -> AbstractContextManager[int]:
    """The first function of a TCP congestion control: ssthresh()."""
    kind = loader.kernel_struct("tcp_congestion_ops")
    return loaded(asm.returning(0), loader.STRUCT_OPS, attach_btf_id=kind)


@contextmanager
def _extension() -> Iterator[int]:
    """A program that can replace a function of another program."""
    with ExitStack() as stack:
        types = Types()
        main = types.function("main", [("ctx", types.void_pointer)], GLOBAL)
        victim = types.function("victim", [("x", types.s32)], GLOBAL)
        btf = stack.enter_context(loaded_btf(types.blob()))
        head = asm.mov(asm.R1, 1) + asm.call_function(2) + asm.EXIT
        target = stack.enter_context(
            loaded(
                head + asm.returning(1), btf=btf, functions=[(0, main), (asm.length(head), victim)]
            )
        )
        yield stack.enter_context(
            loaded(
                asm.returning(0),
                loader.EXT,
                btf=btf,
                functions=[(0, victim)],
                attach_btf_id=victim,
                attach_program=target,
            )
        )


@contextmanager
def _tail_call() -> Iterator[int]:
    with one_element_map(PROG_ARRAY, 4) as programs:
        jump = asm.load_map(asm.R2, programs) + asm.mov(asm.R3, 0) + asm.call(asm.TAIL_CALL)
        with loaded(jump + asm.returning(0)) as fd:
            yield fd


def _override() -> AbstractContextManager[int]:
    return loaded(asm.mov(asm.R2, 0) + asm.call(asm.OVERRIDE_RETURN) + asm.returning(0))


Load = Callable[[], AbstractContextManager[int]]


@dataclass(frozen=True)
class Refused:
    """A program, and the module's sentence of refusal."""

    name: str
    load: Load
    errno: int = errno.EINVAL
    words: str = "not of a BPF program of type kprobe"
    #: words of the reason for which some kernels may not load it
    optional: str = ""


ANOTHER = "made for another attach type"
REFUSED = [
    Refused("socket filter", _plain(loader.SOCKET_FILTER)),
    Refused("classifier", _plain(loader.SCHED_CLS)),
    Refused("XDP", _plain(loader.XDP)),
    Refused("cgroup", _plain(loader.CGROUP_SKB)),
    Refused("tracepoint", _plain(loader.TRACEPOINT)),
    Refused("perf event", _plain(loader.PERF_EVENT)),
    Refused("raw tracepoint", _plain(loader.RAW_TRACEPOINT)),
    Refused("system call", _plain(loader.SYSCALL, flags=loader.F_SLEEPABLE)),
    Refused(
        "netfilter",
        _plain(loader.NETFILTER, attach_type=loader.NETFILTER_ATTACH),
        optional="6.1 has no such programs",
    ),
    Refused(
        "function entry", _for_kernel_function(loader.TRACING, loader.TRACE_FENTRY, "nf_hook_slow")
    ),
    Refused(
        "security hook",
        _for_kernel_function(loader.LSM, loader.LSM_MAC, "file_open"),
        optional="the debug kernels have no security modules",
    ),
    Refused("struct_ops", _struct_ops),
    Refused("extension", _extension),
    Refused(
        "sleepable",
        _plain(loader.KPROBE, flags=loader.F_SLEEPABLE),
        errno.EOPNOTSUPP,
        "sleepable programs cannot run where packets are handled",
    ),
    Refused(
        "kprobe multi",
        _plain(loader.KPROBE, attach_type=loader.TRACE_KPROBE_MULTI),
        errno.EOPNOTSUPP,
        ANOTHER,
    ),
    Refused(
        "uprobe multi",
        _plain(loader.KPROBE, attach_type=loader.TRACE_UPROBE_MULTI),
        errno.EOPNOTSUPP,
        ANOTHER,
        optional="6.1 has no such attach type",
    ),
    Refused(
        "kprobe session",
        _plain(loader.KPROBE, attach_type=loader.TRACE_KPROBE_SESSION),
        errno.EOPNOTSUPP,
        ANOTHER,
        optional="6.1 has no such attach type",
    ),
    Refused("tail calls", _tail_call, errno.EOPNOTSUPP, "makes tail calls"),
    Refused(
        "override",
        _override,
        errno.EOPNOTSUPP,
        "bpf_override_return, which has no meaning here",
        optional="the helper needs CONFIG_BPF_KPROBE_OVERRIDE, which Debian's kernels lack",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refused_at_attach(controller: Controller, case: Refused, hook: Hook) -> None:
    with ExitStack() as stack:
        good = stack.enter_context(loaded(asm.returning(0)))
        try:
            fd = stack.enter_context(case.load())
        except (LoadError, FileNotFoundError) as error:
            if not case.optional:
                raise
            pytest.skip(f"{case.optional}: {error}")
        others = dict.fromkeys(TABLE_SLOTS, good)
        for slot in TABLE_SLOTS:
            with pytest.raises(KernelError, match=case.words) as refused:
                controller.attach(hook, ProgramSet({**others, slot: fd}))
            assert refused.value.errno == case.errno
            assert controller.links() == []
            assert redirected_functions() == []

        # nor does it replace a good program
        link = controller.attach(hook, ProgramSet(others))
        for slot in TABLE_SLOTS:
            with pytest.raises(KernelError, match=case.words):
                controller.swap(link.id, ProgramSet({slot: fd}))
            assert controller.link(link.id) == link
        controller.detach(link.id)


#: helpers that could send a packet, directly or through others
SENDING = {
    "clone_redirect": asm.CLONE_REDIRECT,
    "redirect": asm.REDIRECT,
    "redirect_neigh": asm.REDIRECT_NEIGH,
    "redirect_peer": asm.REDIRECT_PEER,
    "sk_redirect_map": asm.SK_REDIRECT_MAP,
    "msg_redirect_map": asm.MSG_REDIRECT_MAP,
    "tcp_send_ack": asm.TCP_SEND_ACK,
    "skb_store_bytes": asm.SKB_STORE_BYTES,
    "sys_bpf": asm.SYS_BPF,
    "copy_from_user": asm.COPY_FROM_USER,
}


def test_the_verifier_keeps_kprobe_programs_from_sending_and_sleeping() -> None:
    arguments = b"".join(asm.mov(register, 0) for register in (2, 3, 4, 5))
    for helper in SENDING.values():
        # each kernel words it differently
        words = (
            f"(unknown func|cannot use helper).*#{helper}$|might sleep in a non-sleep"
            f"|sleepable helper .*#{helper} in non-sleepable"
        )
        with (
            pytest.raises(LoadError, match=words),
            loaded(arguments + asm.call(helper) + asm.returning(0)),
        ):
            pass


@pytest.mark.parametrize("what", ["bpf_skb_store_bytes", "direct"])
def test_the_verifier_keeps_socket_filters_from_writing(what: str) -> None:
    if what == "direct":
        # *(u32 *)(skb + 76) is skb->data
        code = asm.instruction(0x61, asm.R2, asm.R1, 76) + asm.store_number(asm.R2, 0, 0)
        words = "invalid bpf_context access"
    else:
        code = (
            asm.store_number(asm.R10, -8, 0)
            + asm.mov(asm.R2, 0)
            + asm.stack_address(asm.R3, -8)
            + asm.mov(asm.R4, 8)
            + asm.mov(asm.R5, 0)
            + asm.call(asm.SKB_STORE_BYTES)
        )
        words = "unknown func|cannot use helper"
    with (
        pytest.raises(LoadError, match=words),
        loaded(code + asm.returning(0), loader.SOCKET_FILTER),
    ):
        pass


#: struct __sk_buff: sk
_SOCKET = 168


def _keeping_the_socket(sockets: int) -> bytes:
    """A program that puts its packet's socket into a map."""
    keep = (
        asm.store_number(asm.R10, -8, 0)
        + asm.load_map(asm.R1, sockets)
        + asm.stack_address(asm.R2, -8)
        + asm.mov(asm.R4, 0)
        + asm.call(asm.MAP_UPDATE_ELEM)
    )
    socket = asm.load(asm.R3, asm.R1, _SOCKET)
    return socket + asm.jump_if_equal(asm.R3, 0, asm.length(keep)) + keep + asm.returning(1)


def _calling(programs: int) -> bytes:
    jump = asm.load_map(asm.R2, programs) + asm.mov(asm.R3, 0) + asm.call(asm.TAIL_CALL)
    return jump + asm.returning(1)


@pytest.mark.parametrize(
    ("kind", "inside", "code", "words"),
    [
        (SOCKMAP, False, _keeping_the_socket, "a map of sockets"),
        (SOCKHASH, False, _keeping_the_socket, "a map of sockets"),
        (SOCKMAP, True, lambda outer: asm.look_up(outer, 0) + asm.returning(1), "a map of sockets"),
        (PROG_ARRAY, False, _calling, "makes tail calls"),
    ],
    ids=["sockmap", "sockhash", "sockmap in a map", "tail calls"],
)
def test_socket_filters_are_refused_too(
    controller: Controller, kind: int, inside: bool, code: Callable[[int], bytes], words: str
) -> None:
    """The verifier takes them; where TCP sends, the socket of a packet is locked."""
    hook = NfHook.parse("nf:inet4/output", mode=NfMode.FILTER)
    with ExitStack() as stack:
        used = stack.enter_context(one_element_map(kind, 4))
        if inside:
            used = stack.enter_context(map_of_maps(used))
        try:
            bad = stack.enter_context(loaded(code(used), loader.SOCKET_FILTER))
        except LoadError as error:
            # 7.3's verifier refuses it itself, if the program does more than to name the map
            if "sockmap" not in str(error) and "map_type" not in str(error):
                raise
            bad = stack.enter_context(
                loaded(asm.load_map(asm.R1, used) + asm.returning(1), loader.SOCKET_FILTER)
            )
        good = stack.enter_context(loaded(asm.returning(1), loader.SOCKET_FILTER))
        with pytest.raises(KernelError, match=words) as refused:
            controller.attach(hook, ProgramSet({Slot.PACKET: bad}))
        assert refused.value.errno == errno.EOPNOTSUPP
        link = controller.attach(hook, ProgramSet({Slot.PACKET: good}))
        for verb in (controller.swap, controller.shadow):
            with pytest.raises(KernelError, match=words):
                verb(link.id, ProgramSet({Slot.PACKET: bad}))
        assert controller.link(link.id) == link
        controller.detach(link.id)


def _held_in_a_map(name: str, size: int) -> tuple[bytes, int, int]:
    """The types of a value that begins with a type of the kernel's: blob, key, value."""
    types = Types()
    inner = types.struct(name, size, [("raw", types.u64 if size > 4 else types.u32, 0)])
    value = types.struct("value", 24, [("held", inner, 0), ("number", types.u64, 16)])
    return types.blob(), types.u32, value


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("bpf_spin_lock", 4, "tracing progs cannot use bpf_spin_lock yet"),
        ("bpf_timer", 16, "tracing progs cannot use bpf_timer yet"),
    ],
)
def test_the_verifier_keeps_locks_and_timers_from_kprobe_programs(
    name: str, size: int, words: str
) -> None:
    if name == "bpf_timer" and kernel_version() >= (7, 0):
        pytest.skip("this kernel has timers for programs in any context")
    blob, key, value = _held_in_a_map(name, size)
    with (
        loaded_btf(blob) as btf,
        typed_map(ARRAY, 24, btf=btf, key_type=key, value_type=value) as fd,
        pytest.raises(LoadError, match=words),
        loaded(asm.look_up(fd, 0) + asm.returning(0)),
    ):
        pass
