"""A small run as flags, and a component with every kind of field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import attrs

SMALL = (
    "--steps 300 --warmup-steps 200 --updates-per-step 0.1 --batch-size 32 --particles 8 --policy.hidden 16 16 "
    "--critic.hidden 16 16 --buffer.capacity 2000 --log-every 100 --eval-every 0 --eval-episodes 2 --no-tensorboard"
).split()


@attrs.frozen
class Odd:
    """A component with every kind of field.

    Attributes:
        depth: how deep
    """

    must: float
    depth: int = 3
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, str] = (1, "x")
    maybe: float | None = None
    rule: str | Callable[[Any], Any] = "min"
    anything: Any = 7
    table: dict[str, int] = attrs.field(factory=lambda: {"x": 1})
    hidden: Any = attrs.field(default=None, init=False)

    summary: ClassVar[str] = "an odd one"
