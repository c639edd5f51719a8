"""The table of speed goals: from rows made by hand, and without rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import buffers, goals_report


def write_rows(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def goal(profile: str, median: float, bound: str = "at least", needed: float = 3.0) -> dict[str, Any]:
    ratio = {"p25": median - 0.5, "median": median, "p75": median + 0.5}
    reached = median >= needed if bound == "at least" else median <= needed
    what = {"kind": "goal", "goal": "newton against another", "size": "B=1", "bound": bound, "needed": needed}
    return what | {"ratio": ratio, "reached": reached, "command": f"solvers {profile}"}


def table(folder: Path) -> dict[str, list[str]]:
    (path,) = goals_report.write(folder)
    cells = [line.strip("| ").split(" | ") for line in path.read_text().splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in cells[2:]}


def test_each_goal_stands_beside_what_was_measured(tmp_path: Path) -> None:
    write_rows(tmp_path / "solvers-quick.jsonl", goal("quick", 9.0))
    write_rows(tmp_path / "solvers-full.jsonl", {"kind": "run"}, goal("full", 2.0))
    ratio = {"q1": 4.0, "median": 4.2, "q3": 5.0}
    update = {"part": "update", "setting": "defaults", "variant": "float32", "threads": 2, "command": "updates"}
    training = {"part": "training", "envs": 1, "workers": 0, "threads": 2, "command": "training"}
    write_rows(
        tmp_path / "updates.jsonl",
        update | {"ratio": ratio},
        update | {"setting": "large", "variant": "bfloat16", "ratio": ratio | {"median": 3.9}},
        training | {"ratio": 0.2, "ratio_ours_to_peer": ratio | {"median": 2.4}},
        training | {"ratio": 1.0, "ratio_ours_to_peer": ratio},
        {"part": "growth", "growth_mb": 7.0, "updates": 10_000, "command": "growth"},
    )
    eight = {"population": 8, "ratio": {"p10": 1.0, "median": 1.9, "p90": 2.5}, "command": "population"}
    write_rows(tmp_path / "population.jsonl", eight, eight | {"population": 4})
    spread = {"p10": 60.0, "median": 90.0, "p90": 200.0}
    buffer = {"buffer": "mine", "envs": 4, "batch": 2, "add_us": spread, "sample_us": spread | {"median": 120.0}}
    about = {"numpy_dual_us": {"median": 270.0}, "command": "buffers", "versions": {"processor": "A CPU"}}
    write_rows(tmp_path / "buffers.jsonl", buffer | about)
    found = table(tmp_path)
    assert found["newton against another; B=1"] == [
        "at least 3 times faster",
        "2 (1.5 to 2.5)",
        "no",
        "`solvers full`",
    ]
    assert found["an update against FSRL's, defaults, threads 2"][1:] == ["4.2 (4 to 5)", "yes", "`updates`"]
    assert found["an update against FSRL's, large"][1:] == ["not measured", "–", "–"]
    assert found["an update against FSRL's, large, bfloat16 particles, threads 2"][1:3] == ["3.9 (4 to 5)", "no"]
    at = "training against FSRL's, {} updates a step, environments 1, workers 0, threads 2"
    assert found[at.format(0.2)][2] == "no"
    assert found[at.format(1)] == ["–", "4.2 (4 to 5)", "–", "`training`"]
    assert found["growth of memory"][1:3] == ["7 MB in 10000 updates", "no"]
    (population,) = (row for what, row in found.items() if what.startswith("8 agents"))
    assert population[1:3] == ["1.9 (1 to 2.5)", "no"]
    assert found["mine: add of 4 transitions, A CPU"][1:3] == ["90 (60 to 200) µs; 30 at that machine's speed", "yes"]
    assert found["mine: sample of 2, A CPU"][1:3] == ["120 (60 to 200) µs; 40 at that machine's speed", "no"]


def test_rows_of_another_processor_stay(tmp_path: Path) -> None:
    path = tmp_path / "results" / "buffers.jsonl"
    for processor, name in (("one", "old"), ("other", "first"), ("one", "new")):
        buffers.write(path, [{"buffer": name, "versions": {"processor": processor}}])
    assert [json.loads(line)["buffer"] for line in path.read_text().splitlines()] == ["first", "new"]


def test_without_rows_there_is_no_table(tmp_path: Path) -> None:
    assert goals_report.write(tmp_path) == [] and not list(tmp_path.iterdir())
