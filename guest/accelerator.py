# SPDX-License-Identifier: GPL-2.0
"""The choice between running guests on the processor and emulating them."""

from __future__ import annotations

import enum
import os
import subprocess
from pathlib import Path

from guest.kernels import Kernel

_PROBE_SECONDS = 20
_KVM = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Emulated, a repeated string instruction costs as much as its steps. Where these two features are
# offered, kernels choose steps of one byte, which cost eight times those of a word. Five levels of
# page tables cost one more than four do.
_EMULATED_CPU = "max,-erms,-fsrm,-la57"


class Accelerator(enum.Enum):
    """How QEMU executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"

    def qemu_options(self) -> list[str]:
        """The QEMU options that choose this accelerator."""
        if self is Accelerator.KVM:
            return []
        # Multi-threaded emulation loses races with the kernel's live patching of its own text.
        return ["-accel", "tcg,thread=single", "-cpu", _EMULATED_CPU]


def boots_with_kvm(kernel: Kernel, timeout: float = _PROBE_SECONDS) -> bool:
    """Try to boot the kernel under KVM, which may hang although the device can be opened.

    Without a root file system the kernel panics once it is up; that panic is the proof.
    """
    command = [
        "qemu-system-x86_64",
        *("-machine", "q35,accel=kvm", "-cpu", "host", "-m", "512M"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel.image), "-append", "console=ttyS0 panic=-1"),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return b"Unable to mount root fs" in done.stdout


def choose(kernel: Kernel, build_dir: Path) -> Accelerator:
    """Choose the accelerator for a kernel; cached below ``build_dir`` until the next boot."""
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Accelerator.TCG
    answer = build_dir / "guest" / f"accelerator-{kernel.release}"
    boot_id = _BOOT_ID.read_text().strip()
    try:
        known_boot, known = answer.read_text().split()
        if known_boot == boot_id:
            return Accelerator(known)
    except (OSError, ValueError):
        pass
    chosen = Accelerator.KVM if boots_with_kvm(kernel) else Accelerator.TCG
    answer.parent.mkdir(parents=True, exist_ok=True)
    answer.write_text(f"{boot_id} {chosen.value}\n")
    return chosen
