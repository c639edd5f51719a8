"""Guard benchmark: updates stay inside the trust region, whatever the optimiser does.

    python -m benchmarks.guard --seeds 0 5 10

Trains the built-in task as its preset says, with the policy's learning rate as it is and a hundred times as large, for
each fit. One JSON line a run is written to ``benchmarks/results/guard.jsonl``: over all updates, the largest KL/ε of
any term, how often the guard acted and the smallest tightest KL/ε where it did; at the end, return and cost of 20
deterministic episodes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cvpo.evaluation import evaluate
from cvpo.run import configure
from cvpo.run.setting import build, setting
from cvpo.run.versions import versions
from cvpo.train import Loop

RESULT = Path(__file__).parent / "results" / "guard.jsonl"
TASK = "cvpo/Sprint-v0"
LEARNING_RATE = 1e-3


def train(fit: str, factor: float, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Train one agent and watch each of its updates; a row of the results."""
    options: dict[str, Any] = {} if steps is None else {"steps": steps}
    fit_options = {"name": fit, "iterations": 2, "lr": LEARNING_RATE * factor}
    config = configure(task=TASK, seed=seed, fit=fit_options, **options)
    with setting(config) as (env, eval_env):
        loop = Loop(build(config, env), env, config.schedule)
        agent, update = loop.agent, loop.agent.update
        largest, guarded = [], []

        def watched() -> Any:
            metrics = update()
            tightest = max(float(metrics[f"mstep/kl/{term}"]) for term in agent.config.mstep.bounds)
            largest.append(tightest)
            if float(metrics["mstep/guard_t"]) < 1.0:
                guarded.append(tightest)
            return metrics

        agent.update = watched  # type: ignore[method-assign]
        loop.run(config.steps)
        found = evaluate(agent, eval_env, 20, seed=0)
    return {
        "fit": fit,
        "lr_factor": factor,
        "seed": seed,
        "steps": config.steps,
        "updates": len(largest),
        "largest_kl": max(largest),
        "guarded": len(guarded),
        "least_guarded_kl": min(guarded, default=None),
        "return": float(found.returns.mean()),
        "cost": float(found.costs.mean()),
        "cost_limit": config.agent["cost_limits"][0],
        "versions": versions(),
    }


def main(argv: Iterable[str] | None = None) -> None:
    """Train all variants, ``--jobs`` side by side, and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 5, 10])
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args(None if argv is None else list(argv))
    command = f"python -m benchmarks.guard --seeds {' '.join(map(str, arguments.seeds))}"
    RESULT.parent.mkdir(exist_ok=True)
    runs = list(product(("likelihood", "regression"), (1.0, 100.0), arguments.seeds))
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool, open(RESULT, "w") as file:
        for row in pool.map(train, *zip(*runs, strict=True)):
            file.write(json.dumps({**row, "command": command}) + "\n")
            file.flush()
            print({name: value for name, value in row.items() if name != "versions"})


if __name__ == "__main__":
    main()
