"""Very many projections at once: none fails. ``CVPO_STATES=1000000`` runs a million; time and memory are printed."""

from __future__ import annotations

import os
import resource
import time

import pytest
import torch

from cvpo import mstep
from cvpo.distributions import Gaussian

STATES = int(os.environ.get("CVPO_STATES", "5000"))
PARTICLES, SIZE = 16, 6


@pytest.mark.parametrize("average", ["batch", "state"])
@pytest.mark.parametrize("cholesky", [False, True])
@pytest.mark.parametrize("name", mstep.registry.names())
@torch.no_grad()
def test_no_projection_fails(name: str, cholesky: bool, average: str) -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(STATES, SIZE, generator=generator)
    scale = 10.0 ** (2 * torch.rand(STATES, SIZE, generator=generator) - 1.5)
    if cholesky:
        lean = torch.randn(STATES, SIZE, SIZE, generator=generator).tril(-1)
        scale = torch.diag_embed(scale) + 0.3 * scale.unsqueeze(-1) * lean
    old = Gaussian(mean, scale)
    actions = old.sample(PARTICLES, generator)
    # From nearly uniform to one particle with all the weight.
    sharpness = 10.0 ** (4 * torch.rand(STATES, 1, generator=generator) - 2)
    weights = torch.softmax(sharpness * torch.randn(STATES, PARTICLES, generator=generator), -1)
    weights[: STATES // 10] = (weights == weights.amax(-1, keepdim=True)).float()[: STATES // 10]
    projection = mstep.registry.create(name, average=average)

    start = time.perf_counter(), time.process_time()
    new = projection.project(old, actions, weights)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    worst = {}
    for term, kl in projection.kl(old.to(torch.float64), new.to(torch.float64)).items():
        assert torch.isfinite(kl).all() and (kl >= 0).all()
        worst[term] = float((kl.mean() if average == "batch" else kl.max()) / projection.bounds[term])
    shape = "Cholesky" if cholesky else "diagonal"
    shares = ", ".join(f"{term} {value - 1.0:+.1e}" for term, value in worst.items())
    spent = f"{wall:.2f} s ({cpu:.2f} s CPU), peak {memory:.1f} GiB"
    print(f"{name} {shape} {average}: {STATES} in {spent}; KL/ε − 1: {shares}")
    assert torch.isfinite(new.mean).all() and torch.isfinite(new.scale).all()
    # The result is rounded to float32: 2^-22 |μ| against a step of √(2ε) scales, and the scale itself at ε = 1e-4.
    assert all(value <= 1.0 + 1e-3 for value in worst.values())
