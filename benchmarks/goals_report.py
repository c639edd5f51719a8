"""Every speed goal beside what was measured and the command that measured it: ``goals.md``, from the committed rows.

A goal without a row is in the table all the same, as not measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.markdown import table
from benchmarks.updates_report import BFLOAT16_GOALS, TRAINING_GOAL, TRAINING_RATIO, UPDATE_GOALS

Row = dict[str, Any]

POPULATION, POPULATION_GOAL = 8, 2.0
GROWTH_GOAL = 1.0
"""Megabytes in 10 000 updates: a page here and there is not growth."""
BUFFER_GOAL = 100.0
"""Microseconds: tens of them."""
NUMPY_DUAL = 90.0
"""Microseconds of an evaluation of the dual in NumPy on the machine that the goals were set on."""

ABOUT = """\
The goals are our own, set on another machine (2 cores with AVX-512, on which one evaluation of the dual in NumPy, B=256
and K=64, takes 0.09 ms). Medians, quartiles in brackets (of the population and the buffers: tenth and ninetieth
percentile), of measurements in turns in one run; residuals, times and machine are in the reports of each benchmark.
Times of buffers are given a second time in proportion to an evaluation of the dual, measured beside them. Generated
from the rows by `python -m benchmarks.report`."""


class Line(NamedTuple):
    """A goal: what it is of, the bound, what was measured, "yes", "no" or "–", and the command."""

    what: str
    goal: str
    measured: str
    reached: str
    command: str


def write(results: Path) -> list[Path]:
    """``goals.md`` from the rows in ``results``; nothing where there are none."""
    lines = [*solver_goals(results), *update_goals(results), *population_goals(results), *buffer_goals(results)]
    if all(line.command == "" for line in lines):
        return []
    target = results / "goals.md"
    heads = ["what", "goal", "measured", "reached", "command"]
    body = table(heads, ([*line[:4], f"`{line.command}`" if line.command else "–"] for line in lines))
    target.write_text("\n\n".join(["# Goals of speed", ABOUT, body]) + "\n")
    return [target]


def solver_goals(results: Path) -> Iterator[Line]:
    """Of the solver benchmark, from the longest profile that was run."""
    found = [rows for profile in ("full", "quick") if (rows := _read(results / f"solvers-{profile}.jsonl"))]
    for row in found[0] if found else ():
        if row["kind"] == "goal":
            ratio = row.get("ratio")
            measured = "not measured" if ratio is None else _spread(ratio, "p25", "p75")
            unit = "times faster" if row["bound"] == "at least" else "times the pass"
            goal = f"{row['bound']} {row['needed']:g} {unit}"
            yield Line(f"{row['goal']}; {row['size']}", goal, measured, _word(row["reached"]), row["command"])


def update_goals(results: Path) -> Iterator[Line]:
    """Of the update benchmark."""
    rows = _read(results / "updates.jsonl")
    for further, variant, goals in (
        ("", "float32", UPDATE_GOALS),
        (", bfloat16 particles", "bfloat16", BFLOAT16_GOALS),
    ):
        for setting, needed in goals.items():
            what = f"an update against FSRL's, {setting}{further}"
            yield from _ratios(what, _part(rows, "update", setting=setting, variant=variant), "ratio", needed)
    training = sorted(_part(rows, "training"), key=lambda row: (row["ratio"], row["envs"], row["workers"]))
    for row in training:
        what = f"training against FSRL's, {row['ratio']:g} updates a step, environments {row['envs']}, workers "
        needed = TRAINING_GOAL if row["ratio"] == TRAINING_RATIO else None
        yield from _ratios(f"{what}{row['workers']}", [row], "ratio_ours_to_peer", needed)
    for row in _part(rows, "growth"):
        reached = _word(row["growth_mb"] <= GROWTH_GOAL)
        measured = f"{row['growth_mb']:g} MB in {row['updates']} updates"
        yield Line("growth of memory", f"at most {GROWTH_GOAL:g} MB", measured, reached, row["command"])


def population_goals(results: Path) -> Iterator[Line]:
    """Of the population benchmark."""
    goal = f"at least {POPULATION_GOAL:g} times faster"
    for row in _read(results / "population.jsonl"):
        if row["population"] == POPULATION:
            ratio, what = row["ratio"], f"{POPULATION} agents in one update against one after the other, 2×64"
            reached = _word(ratio["median"] >= POPULATION_GOAL)
            yield Line(what, goal, _spread(ratio, "p10", "p90"), reached, row["command"])
    yield Line("64 agents on a GPU", "less than 4 times one", "not measured: no CUDA device", "–", "")


def buffer_goals(results: Path) -> Iterator[Line]:
    """Of the buffer benchmark, as measured and at the speed of the other machine."""
    for row in _read(results / "buffers.jsonl"):
        speed = NUMPY_DUAL / row["numpy_dual_us"]["median"]
        for name, what in (("add", f"add of {row['envs']} transitions"), ("sample", f"sample of {row['batch']}")):
            found = row[f"{name}_us"]
            scaled = f"{found['median'] * speed:.0f} at that machine's speed"
            measured = f"{_spread(found, 'p10', 'p90')} µs; {scaled}"
            reached = _word(found["median"] < BUFFER_GOAL)
            what = f"{row['buffer']}: {what}, {row['versions']['processor']}"
            yield Line(what, f"under {BUFFER_GOAL:g} µs", measured, reached, row["command"])


def _ratios(what: str, rows: list[Row], name: str, needed: float | None) -> Iterator[Line]:
    goal = "–" if needed is None else f"at least {needed:g} times faster"
    if not rows:
        yield Line(what, goal, "not measured", "–", "")
    for row in rows:
        ratio = row.get(name)
        measured = "not measured" if ratio is None else _spread(ratio, "q1", "q3")
        reached = "–" if ratio is None or needed is None else _word(ratio["median"] >= needed)
        yield Line(f"{what}, threads {row['threads']}", goal, measured, reached, row["command"])


def _part(rows: list[Row], part: str, **having: Any) -> list[Row]:
    return [row for row in rows if row["part"] == part and all(row[name] == value for name, value in having.items())]


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _spread(found: dict[str, float], low: str, high: str) -> str:
    return f"{found['median']:.3g} ({found[low]:.3g} to {found[high]:.3g})"


def _word(reached: bool | None) -> str:
    return {True: "yes", False: "no", None: "–"}[reached]
