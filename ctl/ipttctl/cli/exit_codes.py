# SPDX-License-Identifier: GPL-2.0
"""Exit statuses of ``ipttctl``, those of errors included."""

from __future__ import annotations

from typing import Final

from ipttctl.errors import (
    HostChangedError,
    LinkDetachedError,
    NameTakenError,
    NoSwapWaitsError,
    OtherOwnerError,
    SwapConfirmedError,
    SwapRolledBackError,
    SwapWaitingError,
)

FAILED: Final = 8
"""Exit status of doctor when a check failed."""
DIFFERS: Final = 9
"""Exit status of diff when something would change, or of fleet status when something did."""
NOT_EXECUTABLE: Final = 126
"""Exit status of run if the command cannot be executed, the same as a shell's."""
NOT_FOUND: Final = 127
"""Exit status of run if there is no such command, the same as a shell's."""
INTERRUPTED: Final = 130

EXIT_CODES: Final = {
    0: "done",
    1: "refused by the kernel, or failed otherwise",
    2: "the command line makes no sense",
    3: "the module is missing, does not build or load, is in use, speaks another protocol, or was "
    "unloaded meanwhile",
    4: "a program, a filter, a map or its key is missing, or does not compile or load",
    5: "not privileged",
    6: "there is no such link",
    7: "the link is not as the --expect options say, or was swapped meanwhile",
    FAILED: "doctor found that something is missing",
    DIFFERS: "diff found that something is not as declared, or fleet status that a host is not as "
    "it was kept",
    LinkDetachedError.exit_code: "attach, adopt: somebody else detached the link",
    NameTakenError.exit_code: "another link has the name",
    SwapWaitingError.exit_code: "the last swap of the link waits to be confirmed or rolled back",
    SwapConfirmedError.exit_code: "confirm, rollback: the swap was confirmed already",
    SwapRolledBackError.exit_code: "confirm, rollback: the swap was rolled back already",
    NoSwapWaitsError.exit_code: "confirm, rollback: no swap of the link waits",
    HostChangedError.exit_code: "apply --plan: the host is not as the plan saw it",
    OtherOwnerError.exit_code: "apply, diff: the file of another owner declares it",
    NOT_EXECUTABLE: "run: the command cannot be executed",
    NOT_FOUND: "run: there is no such command",
    INTERRUPTED: "interrupted before there was anything to end",
}
"""Exit status -> its meaning."""
