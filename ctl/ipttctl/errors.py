# SPDX-License-Identifier: GPL-2.0
"""All errors of the package, as a small tree of exceptions.

``str(error)`` is one line that names the object, the problem and the remedy.
"""

from __future__ import annotations

import errno as errno_names
import os


def os_reason(error: OSError) -> str:
    """The reason of a failure, without the object, which the surrounding sentence names."""
    return error.strerror or str(error)


class IpttctlError(Exception):
    """Base of all errors; ``exit_code`` is the exit status of the command line."""

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class UsageError(IpttctlError):
    """The command line or an argument makes no sense."""

    exit_code = 2


class PlaceMissingError(UsageError):
    """There is no such network namespace or device, which may come yet."""


class ModuleError(IpttctlError):
    """The kernel module is missing, or went, cannot be built or loaded, or lacks what is asked."""

    exit_code = 3


class ProgramError(IpttctlError):
    """A BPF program or filter cannot be found, compiled or loaded."""

    exit_code = 4


class VerifierError(ProgramError):
    """The kernel's verifier refuses a program.

    ``program`` is its name, ``reason`` the verifier's, ``instruction`` the index of the refused
    instruction, None if it is unknown.
    """

    def __init__(
        self, program: str, reason: str, instruction: int | None, remedy: str, where: str = ""
    ) -> None:
        refused = f"the kernel's verifier refuses program {program}: {reason}"
        super().__init__(f"{where}: {refused}" if where else refused, remedy)
        self.program = program
        self.reason = reason
        self.instruction = instruction


class PrivilegeError(IpttctlError):
    """The caller may not do this."""

    exit_code = 5


class KernelError(IpttctlError):
    """The module refused a request.

    ``errno`` is the kernel's error number, ``extack`` its message (may be empty), ``attribute`` the
    name of the bad attribute, None if the kernel names none.
    """

    #: the remedy, if the kind of refusal has one
    hint = ""

    def __init__(
        self, action: str, errno: int, extack: str = "", attribute: str | None = None
    ) -> None:
        name = errno_names.errorcode.get(errno, str(errno))
        where = f" (attribute {attribute})" if attribute else ""
        super().__init__(f"{action}: {extack or os.strerror(errno)} [{name}]{where}", self.hint)
        self.errno = errno
        self.extack = extack
        self.attribute = attribute


class LinkGoneError(KernelError):
    """There is no link with this id (any more)."""

    exit_code = 6
    hint = "see `ipttctl links`"


class LinkDetachedError(IpttctlError):
    """Somebody else detached a link that a command held."""

    exit_code = 10

    def __init__(self, link: int) -> None:
        super().__init__(f"link {link} was detached by somebody else")


class NameTakenError(KernelError):
    """Another link has the name already."""

    exit_code = 11
    hint = "see `ipttctl links`; choose another name, or swap that link: attach --persist --replace"


class OwnedError(KernelError):
    """A process owns the link: alone it may change the link, or the link is not to be adopted."""

    hint = "have the process release the link, or use --force"


class ExpectationError(KernelError):
    """A compare-and-swap found an unexpected generation or program."""

    exit_code = 7
    hint = "see `ipttctl links` for what it is now"


class SwapWaitingError(KernelError):
    """The last swap of a link waits to be confirmed or rolled back, so it is not swapped again."""

    exit_code = 12
    hint = "run `ipttctl confirm` or `ipttctl rollback` first"


class SwapConfirmedError(KernelError):
    """A swap that was to be confirmed or rolled back was confirmed already."""

    exit_code = 13
    hint = "see `ipttctl links`"


class SwapRolledBackError(KernelError):
    """A swap that was to be confirmed or rolled back was rolled back already."""

    exit_code = 14
    hint = "see `ipttctl history` for the cause"


class NoSwapWaitsError(KernelError):
    """There is nothing to confirm or to roll back: the link was not swapped, or for good."""

    exit_code = 15
    hint = "swap with --rollback-after or --guard to be able to go back"


class HostChangedError(IpttctlError):
    """The host is not, or no longer, as the plan to be carried out saw it."""

    exit_code = 20


class OtherOwnerError(IpttctlError):
    """A link, or a map, is declared by the file of another owner."""

    exit_code = 21


class RefusedPrivilegeError(KernelError, PrivilegeError):
    """The module refused a request because the caller may not make it."""

    hint = "run it as root of the initial user namespace, with CAP_NET_ADMIN and CAP_BPF"


class OverrunError(Exception):
    """The kernel dropped messages for a socket, which was not read fast enough.

    Readers of sockets catch it: they count what is missing, or read everything again.
    """
