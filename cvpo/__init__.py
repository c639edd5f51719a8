"""cvpo: components for Constrained Variational Policy Optimization, safe reinforcement learning as EM.

The public names load on first use, so that ``import cvpo`` is quick and needs no optional package.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AgentConfig",
    "Batch",
    "CVPO",
    "CheckpointError",
    "ConfigError",
    "CvpoError",
    "DependencyError",
    "EnvError",
    "ProblemError",
    "RunError",
    "Spec",
    "Transition",
    "VectorAgent",
    "WorkerError",
    "evaluate",
    "keep_memory",
    "learn",
    "load",
    "make_agent",
    "make_vector_agent",
    "buffers",
    "critics",
    "distributions",
    "envs",
    "estep",
    "mstep",
    "policy",
    "testing",
    "__version__",
]

#: Public name: the module that defines it.
_HOMES = {
    "AgentConfig": "cvpo.config",
    "Batch": "cvpo.types",
    "CVPO": "cvpo.agent",
    "CheckpointError": "cvpo.errors",
    "ConfigError": "cvpo.errors",
    "CvpoError": "cvpo.errors",
    "DependencyError": "cvpo.errors",
    "EnvError": "cvpo.errors",
    "ProblemError": "cvpo.errors",
    "RunError": "cvpo.errors",
    "Spec": "cvpo.types",
    "Transition": "cvpo.types",
    "VectorAgent": "cvpo.vector_agent",
    "WorkerError": "cvpo.errors",
    "evaluate": "cvpo.evaluation",
    "keep_memory": "cvpo.allocator",
    "learn": "cvpo.train",
    "load": "cvpo.saving",
    "make_agent": "cvpo.assembly",
    "make_vector_agent": "cvpo.assembly",
}

if TYPE_CHECKING:
    from cvpo import buffers, critics, distributions, envs, estep, mstep, policy, testing
    from cvpo.agent import CVPO
    from cvpo.allocator import keep_memory
    from cvpo.assembly import make_agent, make_vector_agent
    from cvpo.config import AgentConfig
    from cvpo.errors import (
        CheckpointError,
        ConfigError,
        CvpoError,
        DependencyError,
        EnvError,
        ProblemError,
        RunError,
        WorkerError,
    )
    from cvpo.evaluation import evaluate
    from cvpo.saving import load
    from cvpo.train import learn
    from cvpo.types import Batch, Spec, Transition
    from cvpo.vector_agent import VectorAgent


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if not name.startswith("_") and importlib.util.find_spec(f"cvpo.{name}") is not None:
        return importlib.import_module(f"cvpo.{name}")
    raise AttributeError(f"module 'cvpo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *globals()])
