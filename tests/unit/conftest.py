# SPDX-License-Identifier: GPL-2.0
"""Settings of all unit tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# machines may be busy: how long an example takes says nothing
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
