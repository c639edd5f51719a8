"""How every contract draws its examples."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def fixed(examples: int) -> settings:
    """``examples`` of a property, the same ones every time, shrunk to the simplest that breaks it."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
