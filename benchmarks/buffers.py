"""Buffer benchmark: what adding a step of many parallel environments and sampling a batch cost.

    python -m benchmarks.buffers

For every registered buffer: ``add`` of 1024 parallel transitions, ``sample`` of 256, and ``reprioritise`` of 256, on a
full store of 2^20 transitions with 17-dimensional observations, 6-dimensional actions and one cost, on one thread. One
JSON line a buffer goes to ``benchmarks/results/buffers.jsonl``, beside those of other kinds of processor: medians and
tenth and ninetieth percentiles in microseconds, bytes of the store, versions, the load of the machine, which should be
near 0, and, as a measure of its speed, one evaluation of the E-step dual (B=256, K=64) with its gradient in NumPy.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.numpy_dual import NumpyDual
from benchmarks.solver_problems import draw
from cvpo import buffers
from cvpo.run.versions import versions
from cvpo.types import Spec, Transition

TARGET = Path(__file__).parent / "results" / "buffers.jsonl"
ENVS, SIZE, CAPACITY = 1024, 256, 2**20
AT = np.array([1.0, 0.5])
"""η and λ, inside the range of a solution; the time of an evaluation does not depend on them."""
SPEC = Spec(obs_size=17, action_size=6, signals=2, gamma=0.99)


def transition() -> Transition:
    """One step of all environments, an episode in a thousand ending."""
    generator = torch.Generator().manual_seed(0)
    obs, action, signals, next_obs, ends = (
        torch.rand(shape, generator=generator)
        for shape in ((ENVS, SPEC.obs_size), (ENVS, SPEC.action_size), (2, ENVS), (ENVS, SPEC.obs_size), (ENVS,))
    )
    return Transition(obs, action, signals, next_obs, ends < 5e-4, ends > 1.0 - 5e-4)


def timed(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Percentiles of the time of one call, in microseconds, after a tenth as many calls to warm up."""
    times = np.empty(repeats)
    for _ in range(repeats // 10):
        call()
    for i in range(repeats):
        began = time.perf_counter()
        call()
        times[i] = time.perf_counter() - began
    low, median, high = np.percentile(times * 1e6, (10, 50, 90))
    return {name: round(float(value), 1) for name, value in (("p10", low), ("median", median), ("p90", high))}


def measure(name: str, repeats: int) -> dict[str, Any]:
    """The row of one buffer."""
    buffer = buffers.registry.create(name, capacity=CAPACITY)
    store = buffer.build(SPEC, ENVS, torch.device("cpu"), torch.Generator().manual_seed(0))
    step = transition()
    for _ in range(CAPACITY // ENVS):
        store.add(step)
    batch, td = store.sample(SIZE), torch.rand(SIZE)
    dual = NumpyDual(draw(0), 0)
    return {
        "buffer": name,
        "envs": ENVS,
        "batch": SIZE,
        "capacity": CAPACITY,
        "bytes": store.nbytes,
        "add_us": timed(lambda: store.add(step), repeats),
        "sample_us": timed(lambda: store.sample(SIZE), repeats),
        "reprioritise_us": timed(lambda: store.reprioritise(batch.index, td), repeats),
        "numpy_dual_us": timed(lambda: dual.value_and_gradient(AT), repeats),
        "repeats": repeats,
        "command": "python -m benchmarks.buffers",
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": versions(),
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put ``rows`` into the file, beside those of other kinds of processor: memory decides here, and differs most."""
    path.parent.mkdir(exist_ok=True)
    before = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    processor = rows[0]["versions"]["processor"]
    kept = [row for row in before if row["versions"]["processor"] != processor]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *rows]))


def main(argv: Iterable[str] | None = None) -> None:
    """Measure every registered buffer and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2_000)
    arguments = parser.parse_args(None if argv is None else list(argv))
    torch.set_num_threads(1)
    rows = [measure(name, arguments.repeats) for name in buffers.registry]
    write(TARGET, rows)
    for row in rows:
        print({key: row[key] for key in ("buffer", "add_us", "sample_us", "reprioritise_us", "numpy_dual_us", "bytes")})


if __name__ == "__main__":
    main()
