"""Environments: every cost convention behind one interface, vectorised in process or in workers.

The names load on first use: Gymnasium imports this package for its registry, and workers need no more than they use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "ActionDoor": "cvpo.envs.spaces",
    "COST_KEYS": "cvpo.envs.sprint",
    "COST_LIMITS": "cvpo.envs.sprint",
    "Groups": "cvpo.envs.groups",
    "ObservationNormaliser": "cvpo.envs.normalise",
    "PiecewiseEncoding": "cvpo.envs.pieces",
    "Serial": "cvpo.envs.serial",
    "Step": "cvpo.envs.vector",
    "VectorEnv": "cvpo.envs.vector",
    "Workers": "cvpo.envs.workers",
    "as_vector": "cvpo.envs.factory",
    "make": "cvpo.envs.factory",
    "register": "cvpo.envs.builtin",
}

__all__ = [
    "ActionDoor",
    "COST_KEYS",
    "COST_LIMITS",
    "Groups",
    "ObservationNormaliser",
    "PiecewiseEncoding",
    "Serial",
    "Step",
    "VectorEnv",
    "Workers",
    "as_vector",
    "make",
    "register",
]

if TYPE_CHECKING:
    from cvpo.envs.builtin import register
    from cvpo.envs.factory import as_vector, make
    from cvpo.envs.groups import Groups
    from cvpo.envs.normalise import ObservationNormaliser
    from cvpo.envs.pieces import PiecewiseEncoding
    from cvpo.envs.serial import Serial
    from cvpo.envs.spaces import ActionDoor
    from cvpo.envs.sprint import COST_KEYS, COST_LIMITS
    from cvpo.envs.vector import Step, VectorEnv
    from cvpo.envs.workers import Workers


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'cvpo.envs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *globals()])
