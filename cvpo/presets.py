"""Presets: options that suit a task. What the user gives comes before a preset, a preset before a default."""

from __future__ import annotations

import re
from typing import Any

from cvpo.envs.sprint import COST_KEYS, COST_LIMITS

#: (pattern on the task, options). Every pattern that matches counts; later rows come before earlier ones.
PRESETS: tuple[tuple[str, dict[str, Any]], ...] = (
    *(
        (f"^{re.escape(task)}$", {"cost_limits": COST_LIMITS[task], "cost_keys": COST_KEYS[task]})
        for task in COST_LIMITS
    ),
    (r"^Safety.*-v\d+$", {"cost_limits": (25.0,), "cost_keys": ("cost",)}),
    (r"^Safety(Ball|Car|Drone|Ant)(Circle|Run|Gather|Reach)-v0$", {"cost_limits": (10.0,)}),
)


def preset(task: str) -> dict[str, Any]:
    """The flat options that the table holds for ``task``."""
    options: dict[str, Any] = {}
    for pattern, values in PRESETS:
        if re.search(pattern, task):
            options.update(values)
    return options
