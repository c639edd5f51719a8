"""Learning benchmark: whole training runs, several seeds, with and without the constraint.

    python -m benchmarks.learning sprint --seeds 0 5 10
    python -m benchmarks.learning velocity --seeds 0

Each run is a process of its own with one thread, ``--jobs`` of them side by side; a run folder that exists already is
resumed or, where it is complete, only read, so that an interrupted benchmark goes on where it was. One JSON line a run
is written to ``benchmarks/results/learning-<suite>.jsonl``: command, configuration, versions, learning curve and final
scores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

#: suite: (task, variants by name with their further options of ``cvpo train``). The constrained variant is the task's
#: preset as it is; the unconstrained one is plain MPO with the same steps, its costs reported all the same.
SUITES: dict[str, tuple[str, dict[str, list[str]]]] = {
    "sprint": ("cvpo/Sprint-v0", {"constrained": [], "unconstrained": ["--cost-limits"]}),
    "sprint-discrete": ("cvpo/SprintDiscrete-v0", {"constrained": [], "unconstrained": ["--cost-limits"]}),
    "sprint-two-costs": ("cvpo/SprintTwoCosts-v0", {"constrained": [], "unconstrained": ["--cost-limits"]}),
    "velocity": ("SafetyHopperVelocity-v1", {"constrained": [], "unconstrained": ["--cost-limits"]}),
}


def train(suite: str, variant: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one run to its end in ``folder``; its row."""
    task, variants = SUITES[suite]
    command = ["train", "--task", task, "--seed", str(seed), "--run", str(folder), *variants[variant]]
    if not (folder / "result.json").exists():
        arguments = ["resume", str(folder)] if (folder / "config.json").exists() else command
        with open(folder.parent / f"{folder.name}.log", "a") as log:
            subprocess.run([sys.executable, "-m", "cvpo", *arguments], stdout=log, stderr=log, check=True)
    evaluations = _lines(folder / "evaluations.jsonl")
    return {
        "suite": suite,
        "variant": variant,
        "task": task,
        "seed": seed,
        "command": " ".join(["cvpo", *command[:5], *variants[variant]]),
        "seconds": evaluations[-1]["time/elapsed"],
        "result": json.loads((folder / "result.json").read_text()),
        "evaluations": evaluations,
        "config": json.loads((folder / "config.json").read_text()),
        "versions": json.loads((folder / "versions.json").read_text()),
    }


def main(argv: Iterable[str] | None = None) -> None:
    """Run a suite and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 5, 10])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"), help="where the run folders are")
    arguments = parser.parse_args(None if argv is None else list(argv))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    runs = [
        (arguments.suite, variant, seed, arguments.folder / f"{arguments.suite}-{variant}-{seed}")
        for seed in arguments.seeds
        for variant in SUITES[arguments.suite][1]
    ]
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"learning-{arguments.suite}.jsonl"
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(lambda run: train(*run), runs))
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        print(row["variant"], row["seed"], json.dumps(row["result"]["scores"][0]))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
