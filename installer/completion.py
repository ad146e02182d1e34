# SPDX-License-Identifier: GPL-2.0
"""Completion for shells: typer's scripts, which ask ``ipttctl`` itself what can follow."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

SHELLS: Final = ("bash", "zsh", "fish")

# zsh loads the file as the function that completes: the first time it has to complete as well.
_ZSH_FIRST_TIME: Final = """
if [[ $funcstack[1] = _ipttctl ]]; then
  _ipttctl_completion "$@"
fi
"""


def script(shell: str) -> str:
    """The script of a shell.

    Raises:
        subprocess.CalledProcessError: typer does not know the shell.
    """
    text = subprocess.run(
        [sys.executable, "-m", "ipttctl"],
        env={**os.environ, "_IPTTCTL_COMPLETE": f"source_{shell}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    return f"{text}\n{_ZSH_FIRST_TIME if shell == 'zsh' else ''}"
