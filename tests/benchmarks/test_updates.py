"""The update benchmark asks its sides in turns, grades the peer from its problem, and goes on without the peer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import updates, updates_report, updates_settings, updates_sides
from cvpo import estep


class Recorded:
    """A side that only notes when it was asked."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        self.log.append(self.name)
        return {"seconds": 1.0}


def test_sides_are_asked_in_turns_after_one_request_to_warm_up() -> None:
    log: list[str] = []
    answers = updates_sides.in_turns({name: Recorded(name, log) for name in ("ours", "peer")}, 2, "time", updates=1)
    assert log == ["ours", "peer", "ours", "peer", "peer", "ours"]
    assert [len(found) for found in answers.values()] == [2, 2]


def test_a_side_that_dies_says_why() -> None:
    side = updates_sides.Side("ours", "no such setting", 1)
    with pytest.raises(RuntimeError, match="no such setting"):
        side.ask("time", updates=1)
    side.close()


def test_the_peers_estep_is_graded_from_its_problem(tmp_path: Path) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, 32, 8, dtype=torch.float64)
    problem = estep.DualProblem(q[0], q[1:], torch.tensor([-0.1]), updates_settings.ESTEP_KL)
    solution = estep.registry.create("newton").solve(problem)
    assert float(solution.lam[0]) > 0.0
    dual = np.array([float(solution.eta), float(solution.lam[0])])
    answers = {"right": (solution.weights, dual), "wrong": (torch.full_like(solution.weights, 1 / 8), dual)}
    found = {}
    for name, (weights, duals) in answers.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, q=q.numpy(), weights=weights.numpy(), dual=duals, limit=np.array([-0.1]))
        found[name] = updates.graded(str(path))["kkt"]
    assert found["right"] < 1e-6 < found["wrong"]


def test_without_the_peer_our_side_is_measured_and_the_way_to_the_peer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (updates, updates_sides):
        monkeypatch.setattr(module, "PEER", tmp_path / "python")
    answer = {"before": 0, "peak": 2**20, "code": 2**21}
    monkeypatch.setattr(updates_sides.Side, "ask", lambda self, do, **request: answer)
    out = tmp_path / "rows.jsonl"
    words = ["memory", "--settings", "defaults", "--threads", "1", "--out", str(out)]
    updates.main(words)
    updates.main(words)
    assert "make bench-peers" in capsys.readouterr().out
    row = json.loads(out.read_text())  # one line: the second measurement takes the place of the first
    assert row["ours_mb"] == 1.0 and row["code_mb"] == 2.0 and row["peer_versions"] is None and "peer_mb" not in row


def test_the_report_holds_each_ratio_against_its_goal(tmp_path: Path) -> None:
    def quarter(value: float) -> dict[str, float]:
        return {"q1": value, "median": value, "q3": value}

    common = {"variant": "float32", "threads": 1, "load": 0.1, "command": "the command"}
    common["versions"] = {name: "1" for name in ("python", "torch", "numpy", "cvpo", "commit", "processor", "cpus")}
    sides = {"ours_accuracy": {"kkt_median": 1e-8}, "peer_accuracy": {"kkt": 3.0}}
    rows = [
        {"part": "update", "setting": name, "ours_ms": quarter(2.0), "peer_ms": quarter(7.0), "ratio": quarter(3.5)}
        | sides
        | common
        for name in ("defaults", "large")
    ]
    rows += [{**row, "variant": "bfloat16", "ratio": quarter(4.5)} for row in rows]
    training = {"part": "training", "ratio": 1.0, "envs": 1, "workers": 0}
    rows.append(training | {"ours_steps_per_second": quarter(9.0)} | common)
    (tmp_path / "updates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path,) = updates_report.write(tmp_path)
    lines = path.read_text().splitlines()
    assert any("| defaults |" in line and "| at least 4 | no |" in line and "| 3 |" in line for line in lines)
    assert any("| large |" in line and "| at least 3 | yes |" in line for line in lines)
    assert any("| large | bfloat16 |" in line and "| at least 4 | yes |" in line for line in lines)
    assert any("| defaults | bfloat16 |" in line and "| 4.5 (4.5 to 4.5) | – | – |" in line for line in lines)
    # Another ratio than the goal's, and no peer: no verdict.
    assert any(line.startswith("| 1.0 | 1 | 0 | 1 | 9 (9 to 9) | – | – | – | – |") for line in lines)
    assert "`the command`" in path.read_text() and path.read_text().count("Not measured.") == 4
    assert updates_report.write(tmp_path / "nothing") == []
