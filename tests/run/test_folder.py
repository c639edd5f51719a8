"""A run leaves everything behind in its folder: metrics, evaluations, checkpoints, configuration, versions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

import cvpo
from cvpo.errors import RunError
from cvpo.run import Result, RunFolder, configure, from_options, train
from cvpo.run.measure import evaluation_seed
from tests.run.helpers import SMALL, rows


def test_a_run_leaves_everything_behind(finished: tuple[RunFolder, Result]) -> None:
    folder, result = finished
    assert (result.steps, result.updates, result.stopped) == (500, 30, None)
    assert [each.policy for each in result.scores] == ["deterministic", "stochastic", "random"]

    metrics = rows(folder.metrics)
    assert [row["step"] for row in metrics] == [100, 200, 300, 400, 500]
    last = metrics[-1]
    assert last["episodes"] == 5
    assert last["train/length"] == 100
    assert last["train/limit_0"] == 25
    assert last["train/cost_ratio_0"] == pytest.approx(last["train/cost_0"] / 25)
    assert last["estep/ok"] + last["estep/infeasible"] + last["estep/max_iter"] == pytest.approx(1)
    expected = {"train/return", "estep/eta", "estep/lam_0", "mstep/kl/mean", "mstep/kl/cov", "critic/loss"}
    assert expected | {"calibration/predicted_0", "calibration/realised_0"} <= last.keys()
    with open(folder.table, newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["100", "200", "300", "400", "500"]
    assert float(table[-1]["train/return"]) == last["train/return"]
    assert {"time/elapsed", "time/steps_per_second", "time/updates_per_second"} <= table[-1].keys()

    assert [row["step"] for row in rows(folder.evaluations)] == [200, 400, 500]
    assert rows(folder.evaluations)[-1]["eval/deterministic/return"] == result.scores[0].returned
    assert [step for step, _ in folder.checkpoints().files()] == [300, 450, 500]
    saved = json.loads(folder.result.read_text())
    assert saved["scores"][2]["policy"] == "random"
    versions = json.loads(folder.versions.read_text())
    assert versions["torch"] == torch.__version__ and versions["cvpo"] == cvpo.__version__


def test_the_written_configuration_repeats_the_run(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    folder, _ = finished
    options = folder.options()
    assert options["horizon"] == 100
    assert options["limit"]["name"] == "policy" and options["limit"]["measure"]
    again = train(from_options(options), tmp_path / "again")
    assert rows(tmp_path / "again" / "metrics.jsonl") == rows(folder.metrics)
    assert (tmp_path / "again" / "config.json").read_text() == folder.config.read_text()
    assert again.steps == 500


def test_a_folder_gives_its_agent(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    folder, result = finished
    agent = cvpo.load(folder.path)
    assert (agent.steps, agent.updates, len(agent.store)) == (500, 30, 0)
    env, seed = cvpo.envs.make("cvpo/Sprint-v0", num_envs=2), evaluation_seed(agent.seed, agent.steps)
    assert float(cvpo.evaluate(agent, env, episodes=2, seed=seed).returns.mean()) == result.scores[0].returned
    agent.learn(250, env=cvpo.envs.make("cvpo/Sprint-v0"))
    assert agent.steps == 750
    with pytest.raises(RunError, match="is not a run folder"):
        cvpo.load(tmp_path)


def test_a_seed_makes_a_difference(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    folder, _ = finished
    train(from_options({**folder.options(), "seed": 4, "steps": 200}), tmp_path / "other")
    assert rows(tmp_path / "other" / "metrics.jsonl")[0] != rows(folder.metrics)[0]


def test_thread_count_is_given_back(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        train(configure(**{**SMALL, "steps": 50}), tmp_path / "run")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_folder_that_exists_is_left_alone(finished: tuple[RunFolder, Result], tmp_path: Path) -> None:
    folder, _ = finished
    with pytest.raises(RunError, match="cvpo resume"):
        train(configure(**SMALL), folder.path)
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(RunError, match="exists already and is not empty"):
        train(configure(**SMALL), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(RunError, match="is a file"):
        train(configure(**SMALL), tmp_path / "thesis.txt")


def test_without_limits_training_is_blind_to_costs_but_evaluation_is_not(tmp_path: Path) -> None:
    result = train(configure(**{**SMALL, "cost_limits": (), "steps": 250}), tmp_path / "run")
    last = rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert not any("cost" in name or "lam" in name for name in last)
    assert len(result.scores[0].costs) == 1
    assert result.scores[0].limits == (None,) and result.scores[0].within == (None,)


def test_two_costs_and_workers(tmp_path: Path) -> None:
    options = {**SMALL, "task": "cvpo/SprintTwoCosts-v0", "num_envs": 2, "steps": 300}
    train(configure(**options), tmp_path / "here")
    train(configure(**options, workers=2), tmp_path / "workers")
    found = rows(tmp_path / "here" / "metrics.jsonl")
    assert found == rows(tmp_path / "workers" / "metrics.jsonl")
    assert {"train/cost_0", "train/cost_1", "estep/lam_1", "calibration/predicted_1"} <= found[-1].keys()
