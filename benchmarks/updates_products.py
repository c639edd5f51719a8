"""What no implementation can do without: the hidden layer of the critics on all particles, as bare matrix products."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.updates_settings import Setting
from cvpo.critics.mlp import PARTICLE_DTYPES
from cvpo.particles import states_at_once


def products(setting: Setting, repeats: int) -> dict[str, Any]:
    """Milliseconds, by dtype, of ``[B·K,H] @ [H,H]`` for each of the G critics of an update, and GFLOP/s: medians.

    No first layer, activations, bias or output, and the operands are in the cache: less than any evaluation of the
    particles takes that computes them one by one. In parts as large as the library's own.
    """
    stack, width = 2 * setting.members, setting.hidden[0]
    found: dict[str, Any] = {}
    for name in PARTICLE_DTYPES:
        dtype = getattr(torch, name)
        states = min(setting.batch, states_at_once(setting.particles, width, dtype))
        rows, parts = states * setting.particles, stack * setting.batch / states
        left, right = (torch.randn(n, width).to(dtype) for n in (rows, width))
        out = torch.empty_like(left)
        seconds = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            torch.mm(left, right, out=out)
            seconds.append(time.perf_counter() - began)
        median = sorted(seconds[1:])[repeats // 2]
        operations = 2.0 * rows * width * width
        found[name] = {"ms": 1e3 * median * parts, "gflops": operations / median / 1e9}
    return found
