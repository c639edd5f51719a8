"""Projection benchmark: very many states at once, none of which may fail or leave the trust region.

    python -m benchmarks.projections --states 1000000

One JSON line for each projection, kind of scale and ``average`` is written to ``benchmarks/results/projections.jsonl``:
time, peak memory of the process, and the largest KL/ε, measured in float64 on the result.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvpo import mstep
from cvpo.distributions import Gaussian

RESULT = Path(__file__).parent / "results" / "projections.jsonl"
PARTICLES, SIZE = 16, 6


def problems(states: int, cholesky: bool) -> tuple[Gaussian, Tensor, Tensor]:
    """Old policies with scales 0.03 … 3, their particles [B,16,6], and weights from uniform to one-hot [B,16]."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(states, SIZE, generator=generator)
    scale = 10.0 ** (2 * torch.rand(states, SIZE, generator=generator) - 1.5)
    if cholesky:
        lean = torch.randn(states, SIZE, SIZE, generator=generator).tril(-1)
        scale = torch.diag_embed(scale) + 0.3 * scale.unsqueeze(-1) * lean
    old = Gaussian(mean, scale)
    sharpness = 10.0 ** (4 * torch.rand(states, 1, generator=generator) - 2)
    weights = torch.softmax(sharpness * torch.randn(states, PARTICLES, generator=generator), -1)
    weights[: states // 10] = (weights == weights.amax(-1, keepdim=True)).float()[: states // 10]
    return old, old.sample(PARTICLES, generator), weights


@torch.no_grad()
def measure(name: str, cholesky: bool, average: str, states: int) -> dict[str, Any]:
    """Project ``states`` states at once; a row of the results."""
    old, actions, weights = problems(states, cholesky)
    projection = mstep.registry.create(name, average=average)
    start = time.perf_counter(), time.process_time()
    new = projection.project(old, actions, weights)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    finite = torch.isfinite(new.mean).all() & torch.isfinite(new.scale).all()
    largest = {}
    for term, kl in projection.kl(old.to(torch.float64), new.to(torch.float64)).items():
        finite = finite & torch.isfinite(kl).all() & (kl >= 0).all()
        largest[term] = float((kl.mean() if average == "batch" else kl.max()) / projection.bounds[term])
    return {
        "projection": name,
        "scale": "Cholesky" if cholesky else "diagonal",
        "average": average,
        "states": states,
        "seconds": wall,
        "cpu_seconds": cpu,
        "peak_gib": memory,
        "finite": bool(finite),
        "kl": largest,
        "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
        "threads": torch.get_num_threads(),
    }


def main(argv: Iterable[str] | None = None) -> None:
    """Measure every registered projection, each in a process of its own so that peaks of memory are its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=1_000_000)
    arguments = parser.parse_args(None if argv is None else list(argv))
    RESULT.parent.mkdir(exist_ok=True)
    cases = product(mstep.registry.names(), (False, True), ("batch", "state"))
    with open(RESULT, "w") as file, multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for case in cases:
            row = pool.apply(measure, (*case, arguments.states))
            row["command"] = f"python -m benchmarks.projections --states {arguments.states}"
            file.write(json.dumps(row) + "\n")
            print({key: row[key] for key in ("projection", "scale", "average", "seconds", "peak_gib", "finite", "kl")})


if __name__ == "__main__":
    main()
