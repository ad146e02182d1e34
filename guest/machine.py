# SPDX-License-Identifier: GPL-2.0
"""The machine a guest runs on, as a virtme-ng command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from guest.accelerator import Accelerator
from guest.kernels import Kernel

_UNUSED_DRIVERS = (
    # Disks: the root file system is the host's, shared.
    *("ahci", "ata_generic", "sr_mod", "sd_mod"),
    # Board devices that nothing here uses.
    *("i2c_i801", "lpc_ich", "iTCO_wdt", "i6300esb", "button", "psmouse", "evdev", "joydev"),
    *("floppy", "parport_pc", "pcspkr", "qemu_fw_cfg", "efi_pstore"),
    # Drivers for features that the emulated processor claims to have.
    *("kvm_amd", "kvm_intel", "powernow_k8", "acpi_cpufreq", "intel_rapl_msr"),
    *("aesni_intel", "ghash_clmulni_intel", "crc32_pclmul", "crct10dif_pclmul"),
    *("sha1_ssse3", "sha256_ssse3", "sha512_ssse3"),
)
"""Modules that udev would load without need: they take half of the boot time."""

_KERNEL_ARGUMENTS = (
    "oops=panic",
    "panic=-1",
    # Warnings and worse reach the console log; informational lines cost boot time.
    "loglevel=5",
    "log_buf_len=16M",
    f"modprobe.blacklist={','.join(_UNUSED_DRIVERS)}",
)


@dataclass(frozen=True)
class Machine:
    """The virtual machine of a guest."""

    kernel: Kernel
    accelerator: Accelerator
    cpus: int = 2
    memory: str = "2G"
    icount: bool = False
    """Advance the clock by one nanosecond per instruction of any CPU, so that times are counts."""
    append: tuple[str, ...] = ()
    """Additional kernel arguments."""

    def __str__(self) -> str:
        return f"{self.kernel.name}/{self.cpus}"

    def __post_init__(self) -> None:
        if self.icount and self.accelerator is not Accelerator.TCG:
            raise ValueError("counting instructions needs the tcg accelerator")

    def qemu_options(self) -> list[str]:
        """QEMU options beyond those of virtme-ng."""
        options = self.accelerator.qemu_options()
        if self.icount:
            options += ["-icount", "shift=0,sleep=off"]
        return options

    def virtme_command(self, repository: Path, *writable: Path) -> list[str]:
        """The ``vng`` command that boots this machine on the host's root file system.

        The root is read-only, ``repository`` takes writes that end with the guest, and
        the ``writable`` directories are shared with the host.
        """
        command = ["vng", "-v", "--run", str(self.kernel.image), "--disable-microvm"]
        if self.accelerator is not Accelerator.KVM:
            command.append("--disable-kvm")
        command += ["--cpus", str(self.cpus), "--memory", self.memory]
        command += ["--name", f"guest-{self.kernel.name.replace('.', '-')}"]
        command += ["--overlay-rwdir", str(repository)]
        for directory in writable:
            command += ["--rwdir", str(directory)]
        command += ["--cwd", str(repository)]
        for argument in (*_KERNEL_ARGUMENTS, *self.kernel.arguments, *self.append):
            command += ["--append", argument]
        if options := self.qemu_options():
            command.append(f"--qemu-opts={' '.join(options)}")
        return command
