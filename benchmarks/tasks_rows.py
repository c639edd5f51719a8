"""Rows of one run of :mod:`benchmarks.tasks`: what its folder holds, as a header and a learning curve.

The header says what was run and what it came to; ``training`` rows are means over the episodes that ended in a bin of
steps (and of the updates made there), ``evaluation`` rows are other episodes, of the policy's mode (``deterministic``)
and of its samples (``stochastic``). Columns have the names that they have in the run folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvpo.files import replacing
from cvpo.logs import read_rows
from cvpo.run import RunFolder

Row = dict[str, Any]

#: A learning curve has about as many training rows; each run of the metrics' own rows between two of them is a bin.
BINS = 100

#: Columns of the metrics that a training row keeps beside returns and costs: what a diagnosis needs.
DIAGNOSIS = (
    "calibration/",
    "critic/loss",
    "critic/td_error",
    "estep/eta",
    "estep/lam_",
    "estep/kl",
    "estep/ok",
    "estep/max_iter",
    "estep/infeasible",
    "estep/nonfinite",
    "estep/backend_error",
    "mstep/kl/",
    "policy/",
)
EPISODES = ("train/", "calibration/")
"""Means over episodes; the other columns are means over updates."""


def rows_of(run: Mapping[str, Any], folder: RunFolder) -> list[Row]:
    """Header, training rows and evaluation rows of the complete run in ``folder``; ``run`` names it in the header.

    ``seconds`` are those of the whole run with its evaluations and checkpoints, over all the parts it was run in.
    """
    evaluations = read_rows(folder.evaluations)
    config, result = (json.loads(path.read_text()) for path in (folder.config, folder.result))
    header = {
        "kind": "run",
        **run,
        "seconds": evaluations[-1]["time/elapsed"],
        "together": result.pop("together"),
        "result": result,
        "config": config,
        "versions": json.loads(folder.versions.read_text()),
    }
    training = [{"kind": "training", **row} for row in binned(read_rows(folder.metrics), config["steps"] / BINS)]
    return [header, *training, *({"kind": "evaluation", **row} for row in evaluations)]


def binned(metrics: Sequence[Row], width: float) -> list[Row]:
    """Metrics rows in bins of at least ``width`` steps: means over all episodes, or updates, of a bin, of six digits.

    ``step`` is where a bin ends, ``episodes`` and ``updates`` are its own.
    """
    found: list[Row] = []
    since: Row = {"step": 0, "episodes": 0, "updates": 0}
    last = since
    held: list[Row] = []
    for i, row in enumerate(metrics):
        held.append({**row, **{name: row[name] - last[name] for name in ("episodes", "updates")}})
        last = row
        if row["step"] - since["step"] >= width or i == len(metrics) - 1:
            found.append({"step": row["step"], **pooled(held), "time/elapsed": _short(row["time/elapsed"])})
            since, held = row, []
    return found


def pooled(rows: Sequence[Row]) -> Row:
    """Means of ``rows``, each counted with its own ``episodes`` or ``updates``, and their sums; None without any."""
    means: Row = {count: sum(row[count] for row in rows) for count in ("episodes", "updates")}
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith(("train/", *DIAGNOSIS))):
        count = "episodes" if name.startswith(EPISODES) else "updates"
        known = [(row[count], row[name]) for row in rows if row.get(name) is not None]
        total = sum(weight for weight, _ in known)
        means[name] = _short(sum(weight * value for weight, value in known) / total) if total else None
    return means


def read_run(path: Path) -> list[Row]:
    """The rows of one run's file, header first."""
    return read_rows(path)


def write_run(path: Path, rows: Sequence[Row]) -> None:
    """Write ``rows`` to ``path``, all or nothing, so that what is there can be committed at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
