"""Update benchmark: one full agent update and whole training, beside FSRL's CVPO in the same run.

    make bench-peers
    python -m benchmarks.updates                      # everything
    python -m benchmarks.updates update --threads 1   # parts: update, stages, products, memory, growth, training
    python -m benchmarks.updates --quick              # a tenth of the updates: to see that it works, not for figures

``update``: milliseconds of one update, the buffer's sampling included, of both sides: blocks of updates in turns, the
side that begins changing from pair to pair, so that what slows the machine slows both; quartiles over the blocks, and
quartiles of the peer's time over ours within each pair. Sizes are those of ``updates_settings.SETTINGS``; hyper-
parameters, data and buffer size are the same. Beside the time stands how good the answer is: the KKT residual of the
weights that the M-step was fitted to, and the KL of the M-step over its bound. ``stages``: where our time goes.
``products``: what the critics' products alone take. With ``--variants bfloat16`` those of our particles' Q-values are
in bfloat16. ``memory``: megabytes that a fresh process gains at most during its first updates. ``growth``: megabytes of
our process between the 1 000th and the 11 000th update. ``training``: environment steps a second on
SafetyCarCircle-v0, acting, simulation and storing included, with one environment or ten, in the same process (0
workers) or in others: one for all of ours, which simulates while we learn and takes one of the threads; one for each of
the peer's ten, as its scripts do.

One JSON line a measurement goes to ``benchmarks/results/updates.jsonl``, in place of that of the same key; it has the
versions, the load of the machine before (other work should leave it near 0), and the command.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import updates_settings as shared
from benchmarks.updates_sides import PEER, ROOT, VARIANTS, in_turns, peer_versions, quartiles, sides
from cvpo.estep import DualProblem, DualSolution, Status, kkt_residuals
from cvpo.run.versions import versions

TARGET = ROOT / "benchmarks" / "results" / "updates.jsonl"
#: Updates of a block, by setting; a block is about a second of the slower side.
BLOCK = {"defaults": 100, "large": 10}
#: Updates of one training that is timed.
TRAINING_UPDATES = 600


def update(setting: str, threads: int, variant: str, quick: bool) -> dict[str, Any]:
    """Time and accuracy of one update of both sides."""
    block, pairs = max(BLOCK[setting] // (10 if quick else 1), 2), 3 if quick else 25
    with sides(setting, threads, variant) as pair:
        answers = in_turns(pair, pairs, "time", updates=block)
        ms = {name: [1e3 * answer["seconds"] / block for answer in found] for name, found in answers.items()}
        row: dict[str, Any] = {f"{name}_ms": quartiles(values) for name, values in ms.items()}
        row["ours_accuracy"] = pair["ours"].ask("accuracy", updates=10 * block)
        if "peer" in pair:
            row["ratio"] = quartiles(p / o for p, o in zip(ms["peer"], ms["ours"], strict=True))
            with tempfile.TemporaryDirectory() as folder:
                path = f"{folder}/estep.npz"
                row["peer_accuracy"] = pair["peer"].ask("accuracy", updates=10 * block, path=path) | graded(path)
    return {**row, "block": block, "pairs": pairs}


def graded(path: str) -> dict[str, Any]:
    """KKT residuals of the peer's last E-step: its weights and duals, on the problem that it posed itself."""
    found = {name: torch.from_numpy(value) for name, value in np.load(path).items()}
    problem = DualProblem(found["q"][0], found["q"][1:], found["limit"], shared.ESTEP_KL)
    solution = DualSolution(
        eta=found["dual"][0],
        lam=found["dual"][1:],
        weights=found["weights"],
        status=torch.tensor(int(Status.OK)),
        iterations=torch.tensor(1),
        violation=torch.tensor(0.0),
    )
    residuals = kkt_residuals(problem, solution)
    return {
        "kkt": float(residuals.max),
        "kkt_stationarity": float(residuals.stationarity),
        "kkt_cost": float(residuals.cost.max()),
        "eta": float(solution.eta),
        "lam": float(solution.lam[0]),
    }


def stages(setting: str, threads: int, variant: str, quick: bool) -> dict[str, Any]:
    """Where the time of our update goes; measuring it takes some per cent itself."""
    with sides(setting, threads, variant, alone=True) as pair:
        updates = BLOCK[setting] * (1 if quick else 10)
        pair["ours"].ask("time", updates=updates)
        return {**pair["ours"].ask("stages", updates=updates), "updates": updates}


def products(setting: str, threads: int, variant: str, quick: bool) -> dict[str, Any]:
    """The least that Q-values of all particles take on this machine, in float32 and in bfloat16."""
    with sides(setting, threads, variant, alone=True) as pair:
        return pair["ours"].ask("products", repeats=5 if quick else 101)


def memory(setting: str, threads: int, variant: str, quick: bool) -> dict[str, Any]:
    """What the first updates of a fresh process add to its memory, at their peak."""
    with sides(setting, threads, variant) as pair:
        found = {name: side.ask("memory", updates=10 if quick else 50) for name, side in pair.items()}
    gains = {f"{name}_mb": round((each["peak"] - each["before"]) / 2**20, 1) for name, each in found.items()}
    gains["code_mb"] = round(found["ours"]["code"] / 2**20, 1)
    return gains | found


def growth(setting: str, threads: int, variant: str, quick: bool) -> dict[str, Any]:
    """What 10 000 updates add to the memory of our process, after 1 000 to warm up."""
    with sides(setting, threads, variant, alone=True) as pair:
        found = pair["ours"].ask("growth", updates=100 if quick else 10_000)
    return {"growth_mb": round(found["growth"] / 2**20, 2), **found}


def training(threads: int, variant: str, ratio: float, envs: int, workers: int, quick: bool) -> dict[str, Any]:
    """Environment steps a second of whole training, at the sizes of the peer's defaults."""
    steps, pairs = (300 * envs, 1) if quick else (round(TRAINING_UPDATES / ratio), 5)
    with sides("defaults", threads, variant) as pair:
        answers = in_turns(pair, pairs, "train", steps=steps, ratio=ratio, envs=envs, workers=workers)
    rates = {name: [each["steps"] / each["seconds"] for each in found] for name, found in answers.items()}
    row: dict[str, Any] = {f"{name}_steps_per_second": quartiles(values) for name, values in rates.items()}
    if "peer" in pair:
        row["ratio_ours_to_peer"] = quartiles(o / p for p, o in zip(rates["peer"], rates["ours"], strict=True))
    return {**row, "steps": steps, "pairs": pairs, "updates": answers["ours"][-1]["updates"]}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "update": update,
    "stages": stages,
    "products": products,
    "memory": memory,
    "growth": growth,
    "training": training,
}


def plan(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The measurements that were asked for: the keys of their rows."""
    for part in arguments.parts or PARTS:
        for threads in arguments.threads:
            for variant in arguments.variants:
                same = {"part": part, "variant": variant, "threads": threads}
                if part == "training":
                    for ratio, envs, workers in product(arguments.ratios, arguments.envs, arguments.workers):
                        if workers < threads:
                            yield {**same, "ratio": ratio, "envs": envs, "workers": workers}
                else:
                    chosen = ["defaults"] if part == "growth" else arguments.settings
                    yield from ({**same, "setting": setting} for setting in chosen)


def main(argv: Iterable[str] | None = None) -> None:
    """Measure what is asked for and write the rows, each as soon as it is there."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them")
    parser.add_argument("--settings", nargs="+", default=list(shared.SETTINGS), choices=list(shared.SETTINGS))
    # bfloat16 takes seconds an update where there are no instructions for it.
    parser.add_argument("--variants", nargs="+", default=["float32"], choices=list(VARIANTS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.2, 1.0], help="updates a step, of training")
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 10], help="environments, of training")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1], help="with environments of their own, fewer")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=TARGET)
    arguments = parser.parse_args(words)
    if wrong := set(arguments.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(wrong))}; allowed: {', '.join(PARTS)}")
    if not PEER.exists():
        print("The peer's environment is missing, so only our side is measured; make it with: make bench-peers")
    common = {
        "command": " ".join(["python -m benchmarks.updates", *words]),
        "versions": versions(),
        "peer_versions": peer_versions(),
    }
    arguments.out.parent.mkdir(exist_ok=True)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    rows = [json.loads(line) for line in lines]
    for key in plan(arguments):
        load = os.getloadavg()[0]
        choice = {name: value for name, value in key.items() if name != "part"}
        found = PARTS[key["part"]](**choice, quick=arguments.quick)
        rows = [row for row in rows if any(row.get(name) != value for name, value in key.items())]
        rows.append({**key, **found, "load": round(load, 2), **common})
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(json.dumps(key | {name: found[name] for name in found if name not in ("stages", "resident")}), flush=True)
        for name, stage in found.get("stages", {}).items():
            print(f"    {name:10} {stage['ms']:8.3f} ms  {stage['operations']:7.1f} operations")


if __name__ == "__main__":
    main()
