# SPDX-License-Identifier: GPL-2.0
"""numpy, as everything here imports it.

Its linear algebra starts a thread for each processor. A signal that such a thread took would not
end what the main thread waits for, so they are started where all signals are blocked.
"""

import signal

_before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
try:
    import numpy as np
    import numpy.typing as npt
finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before)

__all__ = ["np", "npt"]
