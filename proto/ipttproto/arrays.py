# SPDX-License-Identifier: GPL-2.0
"""The import of numpy for the whole project.

numpy's linear algebra starts a thread for each processor. A signal taken by such a thread would not
interrupt the main thread's wait, so the threads are started with all signals blocked.
"""

import signal

_before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
try:
    import numpy as np
    import numpy.typing as npt
finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before)

__all__ = ["np", "npt"]
