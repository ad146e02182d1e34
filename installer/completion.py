# SPDX-License-Identifier: GPL-2.0
"""Shell completion: typer's scripts, which ask ``ipttctl`` itself for completions."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

SHELLS: Final = ("bash", "zsh", "fish")

# zsh loads the file as the completing function: the first call has to complete too.
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
