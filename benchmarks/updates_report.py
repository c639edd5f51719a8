"""The report of the update benchmark: ``updates.jsonl`` to ``updates.md``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.markdown import table
from benchmarks.updates_settings import SETTINGS
from cvpo.critics.mlp import PARTICLE_DTYPES

Row = dict[str, Any]

#: How many times faster than the peer: an update by setting, and whole training at 0.2 updates a step.
UPDATE_GOALS = {"defaults": 4.0, "large": 3.0}
BFLOAT16_GOALS = {"large": 4.0}
TRAINING_GOAL, TRAINING_RATIO = 2.5, 0.2

LIMITATIONS = """\
- Times are those of the machine that a run names, not always the same, with other work on it as the load says; ratios
  within one run carry further.
- The peer's E-step is one step on the dual, ours is solved: the residuals say how far each is from its optimum.
- Data of the timed updates are made up and never change; training is on one task.
- Nothing here is measured on a GPU."""


def write(results: Path) -> list[Path]:
    """``updates.md`` from the rows in ``results``; nothing where there are none."""
    source = results / "updates.jsonl"
    if not source.exists():
        return []
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    target = source.with_suffix(".md")
    target.write_text(markdown(rows))
    return [target]


def markdown(rows: list[Row]) -> str:
    """The report of ``rows``."""
    parts: tuple[tuple[str, str, Callable[[list[Row]], str]], ...] = (
        ("update", "One update", _updates),
        ("stages", "Where our update goes", _stages),
        ("products", "What the critics' products alone take", _products),
        ("training", "Whole training", _training),
        ("memory", "Memory", _memory),
        ("growth", "Growth", _growth),
    )
    sections = ["# Updates", _sizes()]
    for part, title, write_part in parts:
        own = [row for row in rows if row["part"] == part]
        sections += [f"## {title}", write_part(own) if own else "Not measured."]
    return "\n\n".join([*sections, "## Runs", _runs(rows), "## Limitations", LIMITATIONS]) + "\n"


def _sizes() -> str:
    lines = [
        f"- `{name}`: B={s.batch}, K={s.particles}, hidden {'×'.join(map(str, s.hidden))}, critics a signal "
        f"{s.members}, M-step iterations {s.iterations}"
        for name, s in SETTINGS.items()
    ]
    return "\n".join([*lines, "", "Medians, quartiles in brackets, of blocks of updates in turns with the peer."])


def _updates(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        ours, peer = row["ours_accuracy"], row.get("peer_accuracy", {})
        needed = UPDATE_GOALS[row["setting"]] if row["variant"] == "float32" else BFLOAT16_GOALS.get(row["setting"])
        lines.append(
            [
                *_keys(row, "setting", "variant", "threads"),
                _spread(row["ours_ms"]),
                _spread(row.get("peer_ms")),
                _spread(row.get("ratio")),
                *_goal(needed, row.get("ratio")),
                f"{ours['kkt_median']:.0e}",
                f"{peer['kkt']:.2g}" if peer else "–",
            ]
        )
    heads = ["setting", "variant", "threads", "ours, ms", "FSRL, ms", "times faster", "goal", "reached"]
    return table([*heads, "our KKT residual", "FSRL's"], lines)


def _stages(rows: list[Row]) -> str:
    lines = [
        [
            *_keys(row, "setting", "variant", "threads"),
            name,
            f"{at['ms']:.2f}",
            f"{at['operations']:.0f}",
            f"{at['bytes'] / 2**20:.2f}",
        ]
        for row in rows
        for name, at in row["stages"].items()
    ]
    return table(["setting", "variant", "threads", "stage", "ms", "tensor operations", "new memory, MB"], lines)


def _products(rows: list[Row]) -> str:
    lines = [
        [*_keys(row, "setting", "threads"), name, f"{row[name]['ms']:.3g}", f"{row[name]['gflops']:.3g}"]
        for row in rows
        for name in PARTICLE_DTYPES
    ]
    about = "The hidden layer on all B·K particles, operands in the cache: no update that computes it takes less.\n\n"
    return about + table(["setting", "threads", "numbers", "ms", "GFLOP/s"], lines)


def _training(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        ratio = row.get("ratio_ours_to_peer")
        goal = _goal(TRAINING_GOAL if row["ratio"] == TRAINING_RATIO else None, ratio)
        speeds = (
            _spread(row[f"{side}_steps_per_second"]) if f"{side}_steps_per_second" in row else "–"
            for side in ("ours", "peer")
        )
        lines.append([*_keys(row, "ratio", "envs", "workers", "threads"), *speeds, _spread(ratio), *goal])
    heads = ["updates a step", "environments", "workers", "threads", "ours, steps/s", "FSRL, steps/s", "times faster"]
    return table([*heads, "goal", "reached"], lines)


def _memory(rows: list[Row]) -> str:
    lines = [
        [*_keys(row, "setting", "threads"), *(f"{row.get(key, '–')}" for key in ("ours_mb", "code_mb", "peer_mb"))]
        for row in rows
    ]
    return (
        "What the first updates of a fresh process add at their peak, and Numba with our loops before them:\n\n"
        + table(["setting", "threads", "ours, MB", "Numba and loops, MB", "FSRL, MB"], lines)
    )


def _growth(rows: list[Row]) -> str:
    lines = [[*_keys(row, "setting", "threads"), f"{row['updates']}", f"{row['growth_mb']}"] for row in rows]
    return table(["setting", "threads", "updates", "growth, MB"], lines)


def _runs(rows: list[Row]) -> str:
    lines = []
    for command in dict.fromkeys(row["command"] for row in rows):
        own = [row for row in rows if row["command"] == command]
        versions, loads = own[0]["versions"], [row["load"] for row in own]
        packages = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "numpy"))
        where = f"{versions['processor']}, {versions['cpus']} cores, load {min(loads)} to {max(loads)} before"
        lines.append(f"- `{command}`: {where}; cvpo {versions['cvpo']} at {versions['commit']}; {packages}")
    return "\n".join(lines)


def _keys(row: Row, *names: str) -> list[str]:
    return [str(row[name]) for name in names]


def _spread(found: dict[str, float] | None) -> str:
    return "–" if found is None else f"{found['median']:.3g} ({found['q1']:.3g} to {found['q3']:.3g})"


def _goal(needed: float | None, ratio: dict[str, float] | None) -> list[str]:
    if needed is None:
        return ["–", "–"]
    reached = "–" if ratio is None else "yes" if ratio["median"] >= needed else "no"
    return [f"at least {needed:g}", reached]
