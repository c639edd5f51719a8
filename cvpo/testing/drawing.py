"""What every contract shares: how examples are drawn, and how a property says what is wrong."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from torch import Tensor


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


def require(condition: bool | Tensor, message: str) -> None:
    """Raise AssertionError with ``message`` unless the condition holds."""
    if not bool(condition):
        raise AssertionError(message)
