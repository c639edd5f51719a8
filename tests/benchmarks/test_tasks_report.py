"""The learning benchmark's statistics against hand values, and its report from rows made by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report, tasks_report
from benchmarks.tasks_peers import PUBLISHED, RUN_FILE, RUN_TASK, peer_run, published
from benchmarks.tasks_rows import write_run
from benchmarks.tasks_statistics import reached, share_within, summary
from benchmarks.tasks_suites import SUITES

RESULTS = Path(report.__file__).parent / "results"


def test_summary_by_hand() -> None:
    found = summary([9.0, 0.0, 2.0, 1.0])
    assert found.mean == 3.0 and found.iqm == 1.5 and found.count == 4
    assert found.std == pytest.approx(math.sqrt((36 + 9 + 1 + 4) / 3))
    # With two seeds a quarter of the resamples are the lower one twice, and a quarter the higher one.
    assert [getattr(summary([1.0, 3.0]), name) for name in ("iqm", "low", "high")] == [2.0, 1.0, 3.0]


def test_one_seed_has_no_spread() -> None:
    found = summary([4.0])
    assert (found.mean, found.iqm, found.std, found.low, found.high) == (4.0, 4.0, None, None, None)


def test_a_seed_is_within_where_every_cost_is() -> None:
    assert share_within([(25.0, 5.0), (24.0, 5.1), (26.0, 0.0), (0.0, 0.0)], (25.0, 5.0)) == 0.5


def test_reached_by_hand() -> None:
    assert reached([10, 20, 30], [1.0, 5.0, 2.0], 2.0) == 20
    assert reached([10, 20, 30], [1.0, 5.0, 2.0], 5.5) is None


def write(results: Path, suite: str, variant: str, seed: int, cost: float, gain: float = 100.0, **config: Any) -> None:
    """Ten bins and five evaluations of a run of 100 steps: the return grows by ``gain`` a bin, the cost is ``cost``."""
    score = {"returned": 10 * gain, "costs": [cost]}
    header = {"kind": "run", "suite": suite, "variant": variant, "task": SUITES[suite].task, "seed": seed}
    header |= {"command": f"cvpo train --seed {seed}", "jobs": 2, "seconds": 120.0}
    header["config"] = {"steps": 100, "seed": seed, "cost_limits": [10.0], **config}
    header["versions"] = {"processor": "a processor", "cpus": 2, "commit": "0123456789"}
    header["result"] = {"scores": [{"policy": name, **score} for name in ("deterministic", "stochastic", "random")]}
    training = [
        {"kind": "training", "step": 10 * i, "episodes": 2, "updates": 5, "train/return": gain * i}
        | {"train/cost_0": cost, "estep/ok": 0.75, "calibration/predicted_0": 1.5, "calibration/realised_0": 3.0}
        for i in range(1, 11)
    ]
    evaluation = [
        {"kind": "evaluation", "step": 20 * i, "eval/deterministic/return": 2 * gain * i + 50}
        | {"eval/deterministic/cost_0": cost}
        for i in range(1, 6)
    ]
    write_run(results / "tasks" / suite / f"{variant}-{seed}.jsonl", [header, *training, *evaluation])


def lines(text: str, *words: str) -> list[list[str]]:
    """Cells of the table rows that begin with ``words``."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return [row for row in rows if row[: len(words)] == list(words)]


def test_three_seeds_one_over_the_limit(tmp_path: Path) -> None:
    for seed, cost in ((0, 4.0), (5, 10.0), (10, 13.0)):
        write(tmp_path, "car-circle", "constrained", seed, cost, gain=100.0 if seed else 40.0)
    files = tasks_report.write(tmp_path)
    assert {path.name for path in files} == {"tasks.md", "tasks-car-circle.png"} and all(
        path.stat().st_size for path in files
    )
    text = files[0].read_text()
    ((*_, returned, iqm, cost, cost_iqm, ratio, within),) = lines(text, "constrained", "evaluation, mode", "0, 5, 10")
    assert (returned, iqm) == ("800 ± 3.5e+02", "800 [400, 1000]")
    assert (cost, cost_iqm, ratio, within) == ("9 ± 4.6", "9 [4, 13]", "0.90", "67%")
    assert lines(text, "constrained", "training", "0, 5, 10")[0][-1] == "67%"
    # The mean curve gains 80 a bin: 330 is reached in the fifth. Seed 0 gains 40 and needs nine.
    assert lines(text, "constrained", "330")[0][2:] == ["50 (90, 40, 40)", "40 (80, 40, 40)"]
    assert lines(text, "constrained", "430")[0][2] == "60 (–, 50, 50)"
    # The first fifth: bins 1 and 2 of gains 40, 100, 100.
    assert lines(text, "constrained", "20")[0][2:] == ["120", "9", "210", "9"]
    assert lines(text, "constrained", "whole run")[0][2:5] == ["1.5", "3", "0.75"]
    assert lines(text, "constrained", "2.0 (2.0 to 2.0)", "1", "2", "1", "a processor, 2 cores", "0123456")
    assert lines(text, "CVPO", "200 000", "235", "6–10")


def test_missing_variants_and_one_seed(tmp_path: Path) -> None:
    write(tmp_path, "ablation-circle", "mean", 0, 11.0)
    text = tasks_report.write(tmp_path)[0].read_text()
    assert "Variants without rows: max, ucb, slsqp, adam, full, regression." in text
    assert "`ablation-velocity`" in text.split("## Without rows")[1]
    assert lines(text, "mean", "evaluation, mode")[0][4:] == ["1000", "–", "11", "–", "1.10", "0%"]


def test_other_configurations_are_not_averaged(tmp_path: Path) -> None:
    write(tmp_path, "car-circle", "constrained", 0, 4.0)
    write(tmp_path, "car-circle", "constrained", 5, 4.0, gamma=0.9)
    text = tasks_report.write(tmp_path)[0].read_text()
    rows = lines(text, "constrained, 100 steps, at 0123456", "evaluation, mode")
    assert [row[2] for row in rows] == ["0", "5"]


def test_earlier_rows_without_training_curves_are_read(tmp_path: Path) -> None:
    (tmp_path / "learning-sprint.jsonl").write_text((RESULTS / "learning-sprint.jsonl").read_text())
    text = tasks_report.write(tmp_path)[0].read_text()
    assert lines(text, "constrained", "evaluation, mode")[0][2] == "0, 5, 10"
    assert not lines(text, "constrained", "training") and lines(text, "constrained", "30")[0][2] == "no rows"
    assert lines(text, "unconstrained", "evaluation, samples")[0][-1] == "0%"


def test_without_rows_there_is_no_report(tmp_path: Path) -> None:
    assert tasks_report.write(tmp_path) == [] and not list(tmp_path.iterdir())


def test_the_peers_run_is_its_file(tmp_path: Path) -> None:
    found = peer_run(RESULTS, RUN_TASK)
    assert found is not None and len(found.runs) == 2
    steps, mean, low, high = found.band("training/return")  # type: ignore[misc]
    assert (steps[-1], low[-1], high[-1]) == (360_000, 313.5, 336.3) and mean[-1] == pytest.approx(324.9)
    assert (RESULTS / RUN_FILE).read_text().startswith("# FSRL's CVPO, fast-safe-rl 0.1.0")
    assert peer_run(RESULTS, "another task") is None and peer_run(tmp_path, RUN_TASK) is None


def test_published_results_are_of_tasks_that_have_a_suite() -> None:
    assert {each.task for each in PUBLISHED} <= {suite.task for suite in SUITES.values()}
    assert len(published("SafetyPointCircle1-v0")) == 1


def test_the_report_is_a_part_of_all_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "car-circle", "constrained", 0, 4.0)
    report.main(["--results", str(tmp_path)])
    assert capsys.readouterr().out.split() == [str(tmp_path / "tasks.md"), str(tmp_path / "tasks-car-circle.png")]
