"""Rows of :mod:`benchmarks.tasks` as runs, and seeds of one configuration as one group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from benchmarks.tasks_rows import Row, pooled, read_run
from benchmarks.tasks_suites import SUITES
from cvpo.logs import read_rows
from cvpo.plots import Curves, Group

#: Where the curves of each source are in the rows; the mode is what evaluation is first of all.
COLUMNS = {"training": "train/", "evaluation": "eval/deterministic/"}


@attrs.frozen(eq=False)
class TaskRun:
    """One run: its header, and its training and evaluation rows (earlier files have no training rows)."""

    header: Row
    training: list[Row]
    evaluation: list[Row]

    def score(self, policy: str) -> tuple[float, tuple[float, ...]]:
        """Return and costs at the end, of ``"deterministic"``, ``"stochastic"`` or ``"random"`` actions."""
        (found,) = (each for each in self.header["result"]["scores"] if each["policy"] == policy)
        return found["returned"], tuple(found["costs"])

    def pooled(self, since: float = 0.0, until: float = 1.0) -> Row:
        """Training between two shares of the steps, as one row of means."""
        return pooled(self._between(self.training, since, until))

    def evaluated(self, column: str, since: float, until: float) -> float | None:
        """The mean of ``column`` over the evaluations between two shares of the steps; None without any."""
        values = [row[column] for row in self._between(self.evaluation, since, until)]
        return sum(values) / len(values) if values else None

    def curves(self) -> Curves:
        """Return and costs over steps, training and evaluation apart."""
        values: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        names = ("return", *(f"cost_{m}" for m in range(len(SUITES[self.header["suite"]].limits))))
        for source, rows in (("training", self.training), ("evaluation", self.evaluation)):
            for name in names:
                column = COLUMNS[source] + name
                points = [(row["step"], row[column]) for row in rows if row.get(column) is not None]
                if points:
                    steps, heights = np.array(points, dtype=float).T
                    values[f"{source}/{name}"] = (steps, heights)
        return Curves(self.header["config"], values)

    def _between(self, rows: list[Row], since: float, until: float) -> list[Row]:
        steps = self.header["config"]["steps"]
        return [row for row in rows if since * steps < row["step"] <= until * steps]


@attrs.frozen(eq=False)
class Seeds:
    """Runs of one suite and configuration that differ in the seed alone."""

    label: str
    runs: list[TaskRun]

    @property
    def variant(self) -> str:
        return self.runs[0].header["variant"]

    @property
    def steps(self) -> int:
        return self.runs[0].header["config"]["steps"]

    def group(self) -> Group:
        """For drawing: a limit is drawn where training had one."""
        limits = tuple(self.runs[0].header["config"]["cost_limits"])
        return Group(self.label, [run.curves() for run in self.runs], limits)


def read_runs(results: Path) -> list[TaskRun]:
    """All runs under ``results``, by seed.

    Rows of ``learning-*.jsonl``, one line for each run and no training curve, count where a run has no file of its own.
    """
    found: dict[tuple[Any, ...], TaskRun] = {}
    for path in sorted(results.glob("learning-*.jsonl")):
        for row in read_rows(path):
            evaluation = row.pop("evaluations")
            _add(found, TaskRun(row, [], evaluation))
    for path in sorted((results / "tasks").glob("*/*.jsonl")):
        header, *rows = read_run(path)
        training, evaluation = ([row for row in rows if row["kind"] == kind] for kind in ("training", "evaluation"))
        _add(found, TaskRun(header, training, evaluation))
    return sorted(found.values(), key=lambda run: run.header["seed"])


def by_configuration(runs: Sequence[TaskRun]) -> list[Seeds]:
    """The runs of one suite in groups, in the order of its variants.

    Runs of one variant whose configuration differs in more than the seed are never averaged: their groups say the
    steps and the version of the code.
    """
    groups: dict[tuple[str, str], list[TaskRun]] = {}
    for run in runs:
        config = {name: value for name, value in run.header["config"].items() if name != "seed"}
        groups.setdefault((run.header["variant"], json.dumps(config, sort_keys=True)), []).append(run)
    found = []
    for variant in SUITES[runs[0].header["suite"]].variants if runs else ():
        own = [members for (name, _), members in groups.items() if name == variant]
        for members in own:
            header = members[0].header
            further = f", {header['config']['steps']} steps, at {str(header['versions'].get('commit'))[:7]}"
            found.append(Seeds(variant + (further if len(own) > 1 else ""), members))
    return found


def _add(found: dict[tuple[Any, ...], TaskRun], run: TaskRun) -> None:
    found[tuple(run.header[name] for name in ("suite", "variant", "seed"))] = run
