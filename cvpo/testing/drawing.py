"""What every contract shares: how examples are drawn, and how a property says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from hypothesis import HealthCheck, Phase, settings
from torch import Tensor

Case = TypeVar("Case")


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


def same(words: str, found: Tensor, expected: Tensor) -> None:
    """Raise AssertionError that begins with ``words`` unless two float32 tensors are equal but for rounding."""
    close = torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    worst = float((found - expected).detach().abs().max())
    require(close, f"{words}: off by {worst:.3g}; allowed: rounding")


def of_case(component: Any, holds: Callable[[Any, Case], None]) -> Callable[[Case], None]:
    """The property ``holds`` of one component, as hypothesis calls it and names it in a falsifying example."""

    def keeps(case: Case) -> None:
        holds(component, case)

    keeps.__name__ = holds.__name__
    return keeps
