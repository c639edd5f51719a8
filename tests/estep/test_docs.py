"""The solver in docs/estep.md runs as it is printed, is as short as the page says, and keeps the contract."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cvpo import estep
from cvpo.estep import Status
from tests.estep.problems import draw_problem

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "estep.md"
ROWS = [json.loads(line) for line in (ROOT / "benchmarks/results/estep-counts.jsonl").read_text().splitlines()]


def test_the_example_runs_and_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estep.registry, "_targets", dict(estep.registry._targets))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    (source,) = [block for block in blocks if "class Lbfgs" in block]
    body = source[source.index("@attrs.frozen") : source.index("estep.registry.register")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 30
    exec(compile(source, str(PAGE), "exec"), {"__name__": "example"})
    solution = estep.registry.create("lbfgs", max_iter=60).solve(draw_problem(0, lead=(3,)))
    assert (solution.status == Status.OK).all(), "what it is for, it does"


def test_every_status_is_explained() -> None:
    assert all(f"| `{status.name}` |" in PAGE.read_text() for status in Status)


def test_every_solver_is_described_as_it_declares_itself() -> None:
    for name in estep.registry.names():
        row = re.findall(rf"^\| `{name}` \|(.*)\|$", PAGE.read_text(), re.M)[0]
        cells = [cell.strip() for cell in row.split("|")]
        solver = estep.registry.create(name)
        assert float(cells[1].split(",")[0]) == solver.accuracy
        assert (cells[2] == "yes") == solver.differentiable


def test_the_counts_are_those_of_the_committed_rows() -> None:
    rows = {row["command"].split()[4]: row for row in ROWS if " drawn " in row["command"]}
    table = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE.read_text(), re.M)
    assert {name for name, *_ in table} == set(rows)
    for name, *numbers in table:
        row = rows[name]
        assert list(map(int, numbers)) == [row["problems"], row["failures"], row["nan"], row["wrong"]]


def test_the_iterations_and_the_agreement_are_those_of_the_committed_rows() -> None:
    (counted,) = (row for row in ROWS if " iterations newton " in row["command"])
    (compared,) = (row for row in ROWS if " agreement newton " in row["command"])
    (drawn,) = (row for row in ROWS if " drawn newton " in row["command"])
    text = " ".join(PAGE.read_text().split())
    cold, warm, edges = counted["cold"], counted["warm"], drawn["iterations"]
    assert f"median {cold['median']}, 99 % within {cold['99 %']}, at most {cold['largest']} from a cold start" in text
    assert f"median {warm['median']}, at most {warm['largest']} warm" in text
    assert f"median {edges['median']}, 99 % within {edges['99 %']}, at most {edges['largest']}." in text
    assert compared["beyond_1e-6"] == 0 and compared["problems"] == 500
    assert f"{compared['kinds']['INFEASIBLE, reference INFEASIBLE']} of them out of reach" in text
    assert compared["reward"]["99 %"] <= 7.9e-9 and compared["violation"]["largest"] <= 1.2e-8
    # Further apart than before only where the reference is not at its optimum, and ours is.
    apart, ours, theirs = compared["furthest"].values()
    assert apart == compared["reward"]["largest"] <= 3.55e-7 and apart <= max(1.1e-8, theirs) and ours <= 8.4e-13
    assert "on E Q_r to 3.5e-7 of its range" in text and "residuals are 8e-13 and the reference's 1.2e-5" in text
