# SPDX-License-Identifier: GPL-2.0
"""KCSAN reports that fail a test."""

from __future__ import annotations

from tests.kernel.support.races import without_foreign_races

RULE = "=" * 66
BEFORE, AFTER = "test: something", "test: something else"


def _report(title: str, *stacks: tuple[str, ...]) -> list[str]:
    lines = [f"BUG: KCSAN: data-race in {title}"]
    for stack in stacks:
        lines += ["", "write to 0xffff88807951f5b8 of 4 bytes by task 0 on cpu 1:"]
        lines += [f" {frame}+0x10/0x20" for frame in stack]
    return [*lines, "", "Reported by Kernel Concurrency Sanitizer on:", RULE]


def _kept(report: list[str]) -> bool:
    lines = without_foreign_races([BEFORE, RULE, *report, AFTER], "ipttrace")
    assert [lines[0], lines[-1]] == [BEFORE, AFTER]
    assert len(lines) in {3, len(report) + 3}
    return len(lines) > 3


def test_an_access_in_the_module_or_in_what_it_called() -> None:
    foreign = ("do_idle", "cpu_startup_entry")
    assert _kept(_report("a / b", foreign, ("ring_flush [ipttrace]", "worker_thread")))
    assert _kept(_report("a / b", ("strscpy", "frame_open [ipttrace]", "nf_hook_slow"), foreign))
    assert not _kept(_report("a / b", foreign, foreign))
    assert not _kept(_report("a / b", foreign, ("other [ipttrace_other]",)))


def test_what_was_only_interrupted() -> None:
    interrupt = ("hrtimer_active", "asm_sysvec_apic_timer_interrupt")
    assert not _kept(_report("a / b", interrupt, (*interrupt, "links_publish [ipttrace]")))
    # a packet that is handled in an interrupt
    handled = ("frame_open [ipttrace]", "__do_softirq", "asm_sysvec_apic_timer_interrupt")
    assert _kept(_report("a / b", ("do_idle",), handled))
    # an interrupt in the first stack does not affect the second
    assert _kept(_report("a / b", interrupt, ("links_publish [ipttrace]",)))


def test_races_on_purpose() -> None:
    stack = ("ktime_get_mono_fast_ns", "frame_rule [ipttrace]")
    assert not _kept(_report("ktime_get_mono_fast_ns / timekeeping_update", stack, stack))


def test_a_report_that_is_cut_off() -> None:
    report = _report("a / b", ("do_idle",))[:3]
    assert without_foreign_races([BEFORE, *report], "ipttrace") == [BEFORE, *report]
