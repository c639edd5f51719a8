"""The learning benchmark's runner: rows of a real, tiny run; what was interrupted goes on; nothing is run twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tasks
from benchmarks.tasks_rows import binned, pooled, read_run
from benchmarks.tasks_suites import ABLATION, DEFAULT, SUITES, Suite
from cvpo.presets import preset

LOGS = (
    "--log-every",
    "100",
    "--checkpoint-every",
    "300",
    "--eval-episodes",
    "2",
    "--eval-envs",
    "2",
    "--no-tensorboard",
)
TINY = Suite("cvpo/Sprint-v0", {"ucb": (*ABLATION["ucb"], *LOGS)}, 600, (25.0,), 300)


def run(tmp: Path, *further: str) -> int:
    return tasks.main(["tiny", "--seeds", "3", "--folder", str(tmp / "runs"), "--results", str(tmp / "rows"), *further])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the tiny run has been made."""
    tmp = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, "tiny", TINY)
        assert run(tmp) == 0
        yield tmp


def rows_in(tmp: Path) -> list[dict[str, Any]]:
    return read_run(tmp / "rows" / "tiny" / "ucb-3.jsonl")


def test_header_says_what_was_run_and_what_it_came_to(done: Path) -> None:
    header = rows_in(done)[0]
    named = {"kind": "run", "suite": "tiny", "variant": "ucb", "task": "cvpo/Sprint-v0", "seed": 3}
    assert {name: header[name] for name in named} == named
    assert header["command"].startswith("cvpo train --task cvpo/Sprint-v0 --seed 3 --steps 600 --eval-every 300")
    assert header["config"]["critic"]["cost"] == "ucb:1" and header["config"]["critic"]["members"] == 2
    assert header["config"]["steps"] == 600 and header["config"]["threads"] == 1
    assert "torch" in header["versions"] and header["seconds"] > 0
    assert [score["policy"] for score in header["result"]["scores"]] == ["deterministic", "stochastic", "random"]


def test_training_and_evaluation_are_apart(done: Path) -> None:
    rows = rows_in(done)[1:]
    training = [row for row in rows if row["kind"] == "training"]
    evaluation = [row for row in rows if row["kind"] == "evaluation"]
    assert [row["step"] for row in training] == [100, 200, 300, 400, 500, 600]
    assert [row["step"] for row in evaluation] == [300, 600] and len(training) + len(evaluation) == len(rows)
    assert sum(row["episodes"] for row in training) == 6 and sum(row["updates"] for row in training) == 50
    assert {"train/return", "train/cost_0", "calibration/predicted_0", "estep/ok", "critic/loss"} <= set(training[-1])
    assert {"eval/deterministic/return", "eval/stochastic/cost_0"} <= set(evaluation[-1])


def test_a_run_with_rows_is_not_run_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(done) == 0 and "has its rows already" in capsys.readouterr().out


def test_rows_of_another_command_are_kept(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rows_in(done)
    assert run(done, "--steps", "700") == 1
    assert "--steps 600" in capsys.readouterr().err and rows_in(done) == before
    assert run(done, "--steps", "700", "--results", str(done / "others")) == 1
    assert "another number of steps" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_from_its_checkpoint(done: Path) -> None:
    before, folder = rows_in(done), done / "runs" / "tiny" / "ucb-3"
    first, last = sorted((folder / "checkpoints").iterdir())
    made = first.stat().st_mtime_ns
    (folder / "result.json").unlink()
    last.unlink()
    (done / "rows" / "tiny" / "ucb-3.jsonl").unlink()
    assert run(done) == 0
    assert first.stat().st_mtime_ns == made
    assert [timeless(row) for row in rows_in(done)] == [timeless(row) for row in before]


def test_a_failed_run_is_said_and_leaves_no_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SUITES, "tiny", Suite("cvpo/NoSuchTask-v0", {"ucb": ()}, 600, (25.0,), 300))
    assert run(tmp_path) == 1
    assert "tiny ucb 3 ended with status" in capsys.readouterr().err
    assert not (tmp_path / "rows").exists() and (tmp_path / "runs" / "tiny" / "ucb-3.log").read_text()


def test_seeds_trained_together_have_the_rows_of_runs_alone(done: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--together", "--seeds", "3", "4") == 0
    ours = read_run(tmp_path / "rows" / "tiny" / "ucb-3.jsonl")
    assert [row["together"] for row in (ours[0], rows_in(done)[0])] == [2, 1]
    assert (tmp_path / "rows" / "tiny" / "ucb-4.jsonl").exists()
    assert ours[0]["command"] == rows_in(done)[0]["command"]
    returns = [[row["train/return"] for row in rows if row["kind"] == "training"] for rows in (ours, rows_in(done))]
    assert returns[0] == pytest.approx(returns[1], rel=1e-3)


def test_seeds_that_were_interrupted_together_go_on_together(tmp_path: Path) -> None:
    assert run(tmp_path, "--together", "--seeds", "3", "4") == 0
    before = [read_run(tmp_path / "rows" / "tiny" / f"ucb-{seed}.jsonl") for seed in (3, 4)]
    for seed in (3, 4):
        folder = tmp_path / "runs" / "tiny" / f"ucb-{seed}"
        (folder / "result.json").unlink()
        max((folder / "checkpoints").iterdir()).unlink()
        (tmp_path / "rows" / "tiny" / f"ucb-{seed}.jsonl").unlink()
    assert run(tmp_path, "--together", "--seeds", "3", "4") == 0
    for seed, rows in zip((3, 4), before, strict=True):
        again = read_run(tmp_path / "rows" / "tiny" / f"ucb-{seed}.jsonl")
        assert again[0]["together"] == 2
        assert [timeless(row) for row in again[1:]] == [timeless(row) for row in rows[1:]]


def test_bins_are_means_over_episodes_and_over_updates() -> None:
    metrics = [
        {"step": 10, "episodes": 1, "updates": 0, "train/return": 4.0, "time/elapsed": 1.0},
        {"step": 20, "episodes": 4, "updates": 10, "train/return": 8.0, "critic/loss": 2.0, "time/elapsed": 2.0},
        {"step": 30, "episodes": 4, "updates": 20, "train/return": None, "critic/loss": 1.0, "time/elapsed": 3.0},
        {"step": 40, "episodes": 4, "updates": 50, "train/return": None, "critic/loss": 3.0, "time/elapsed": 4.0},
        {"step": 45, "episodes": 6, "updates": 60, "train/return": 5.0, "critic/loss": 7.0, "time/elapsed": 5.0},
    ]
    bins = binned(metrics, 20)
    assert [(row["step"], row["episodes"], row["updates"]) for row in bins] == [(20, 4, 10), (40, 0, 40), (45, 2, 10)]
    # (1 · 4 + 3 · 8) / 4; no episode; 5. Then (10 · 1 + 30 · 3) / 40.
    assert [row["train/return"] for row in bins] == [7.0, None, 5.0]
    assert [row["critic/loss"] for row in bins] == [2.0, 2.5, 7.0]
    whole = pooled(bins)
    assert (whole["episodes"], whole["updates"]) == (6, 60) and whole["train/return"] == pytest.approx(38 / 6, abs=1e-5)


@pytest.mark.parametrize("name", SUITES)
def test_suites_state_the_limits_of_their_tasks(name: str) -> None:
    suite = SUITES[name]
    assert preset(suite.task)["cost_limits"] == suite.limits
    assert suite.eval_every <= suite.steps
    assert list(suite.reach) == sorted(suite.reach)


def test_the_default_is_the_real_tasks_at_their_presets() -> None:
    assert all(list(SUITES[name].variants.values()) == [()] for name in DEFAULT)


@pytest.mark.parametrize("further", [["nothing"], ["sprint", "--variants", "ucb"]])
def test_unknown_names_are_refused(further: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tasks.main(further)
    assert ("there are sprint" if further == ["nothing"] else "it has constrained") in capsys.readouterr().err


def timeless(row: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in row.items() if name not in ("time/elapsed", "seconds")})
