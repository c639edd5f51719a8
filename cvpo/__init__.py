"""cvpo: components for Constrained Variational Policy Optimization, safe reinforcement learning as EM.

The public names load on first use, so that ``import cvpo`` is quick and needs no optional package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "CVPO": "cvpo.agent",
    "AgentConfig": "cvpo.config",
    "make_agent": "cvpo.assembly",
    "load": "cvpo.assembly",
    "learn": "cvpo.train",
    "evaluate": "cvpo.evaluation",
    "Batch": "cvpo.types",
    "Spec": "cvpo.types",
    "Transition": "cvpo.types",
    "CvpoError": "cvpo.errors",
    "ConfigError": "cvpo.errors",
    "ProblemError": "cvpo.errors",
    "EnvError": "cvpo.errors",
    "RunError": "cvpo.errors",
    "CheckpointError": "cvpo.errors",
    "DependencyError": "cvpo.errors",
}
_MODULES = ("buffers", "critics", "distributions", "envs", "estep", "mstep", "policy", "testing")

__all__ = ["__version__", *_MODULES, *_PUBLIC]

if TYPE_CHECKING:
    from cvpo import buffers, critics, distributions, envs, estep, mstep, policy, testing
    from cvpo.agent import CVPO
    from cvpo.assembly import load, make_agent
    from cvpo.config import AgentConfig
    from cvpo.errors import (
        CheckpointError,
        ConfigError,
        CvpoError,
        DependencyError,
        EnvError,
        ProblemError,
        RunError,
    )
    from cvpo.evaluation import evaluate
    from cvpo.train import learn
    from cvpo.types import Batch, Spec, Transition


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"cvpo.{name}")
    raise AttributeError(f"module 'cvpo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *globals()])
