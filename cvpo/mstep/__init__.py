"""M-step: projections (exact weighted maximum likelihood inside a trust region) and fits (a network's way there)."""

from __future__ import annotations

from cvpo.mstep.protocol import Fit, Projection
from cvpo.registry import Registry

registry = Registry(
    "M-step projection",
    {
        "decoupled": "cvpo.mstep.decoupled:Decoupled",
        "full": "cvpo.mstep.full:Full",
    },
    group="cvpo.mstep",
)

fits = Registry(
    "M-step fit",
    {
        "likelihood": "cvpo.mstep.likelihood:Likelihood",
        "regression": "cvpo.mstep.regression:Regression",
    },
)

__all__ = ["Fit", "Projection", "fits", "registry"]
