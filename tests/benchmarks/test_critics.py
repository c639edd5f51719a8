"""The critic benchmark: realised is what rewards and costs say, and critics that learn are graded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import critics
from benchmarks.single_steps import single_steps
from cvpo import buffers
from cvpo.run import configure, train
from tests.buffers.test_buffers import CPU, GAMMA, spec, stream

SMALL: dict[str, Any] = {
    "task": "cvpo/Sprint-v0",
    "seed": 3,
    "steps": 1_200,
    "warmup_steps": 600,
    "eval_every": 0,
    "eval_episodes": 1,
    "tensorboard": False,
    "policy": {"name": "diagonal", "hidden": (16,)},
    "critic": {"name": "mlp", "hidden": (32, 32)},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("critics") / "run"
    train(configure(**SMALL), path)
    return path


def test_critics_learn_to_foresee_what_comes(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "critics.jsonl"
    line = [str(run), "--variants", "1 steps", "5 steps", "--episodes", "4", "--updates", "400", "--every", "200"]
    critics.main([*line, "--out", str(out)])
    rows = [json.loads(text) for text in out.read_text().splitlines()]
    assert [row["variant"] for row in rows] == ["1 steps", "5 steps"] and rows[1]["changes"]["buffer"] == {"steps": 5}
    assert [each["updates"] for each in rows[0]["grades"]] == [200, 400] and rows[0]["step"] == 1_200
    for row in rows:
        reward, cost = row["grades"][-1]["signals"]
        assert reward["correlation"] > 0.5 and cost["correlation"] > 0.5
        assert 0.3 < reward["agreement"] < 1.0 and 0.3 < cost["agreement"] < 1.0
        # The same episodes for every variant.
        assert cost["realised_mean"] == rows[0]["grades"][0]["signals"][1]["realised_mean"]


def test_critics_see_what_those_of_the_run_see(tmp_path: Path) -> None:
    options = {**SMALL, "obs_pieces": 3, "normalise_obs": True, "buffer": {"name": "nstep", "steps": 2}}
    train(configure(**options), tmp_path / "run")
    out = tmp_path / "critics.jsonl"
    line = [str(tmp_path / "run"), "--variants", "2 steps", "--episodes", "4", "--updates", "400", "--every", "400"]
    critics.main([*line, "--out", str(out)])
    reward, cost = json.loads(out.read_text())["grades"][0]["signals"]
    assert reward["correlation"] > 0.5 and cost["correlation"] > 0.5


def test_to_go_is_the_discounted_sum_of_what_is_left() -> None:
    class Steps:
        num_envs = 2
        rewards = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

        def reset(self) -> np.ndarray:
            self.t = -1
            return np.zeros((2, 1), np.float32)

        def begin(self, actions: np.ndarray) -> None:
            self.t += 1

        def finish(self) -> Any:
            class Step:
                reward, cost = self.rewards[self.t], np.ones((2, 1))
                obs = np.full((2, 1), self.t + 1, np.float32)
                terminated, truncated = np.zeros(2, bool), np.full(2, self.t == 2)

            return Step

    class Agent:
        class spec:  # noqa: N801
            gamma = 0.01

        def act(self, obs: np.ndarray) -> torch.Tensor:
            return torch.zeros(2, 1)

    course = critics.play(Agent(), Steps())  # type: ignore[arg-type]
    assert course.obs.flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
    np.testing.assert_allclose(course.to_go[0], [[1.0 + 0.03 + 0.0005, 2.0 + 0.04 + 0.0006], [3.05, 4.06]])
    np.testing.assert_allclose(course.to_go[1], [[1.0101, 1.0101], [1.01, 1.01]])


@pytest.mark.parametrize(("steps", "rows", "terminating"), [(2, 40, True), (5, 40, False), (5, 13, True)])
def test_single_steps_are_those_that_were_added(steps: int, rows: int, terminating: bool) -> None:
    added = stream(40, 3, terminating=terminating)
    store = buffers.registry.create("nstep", steps=steps, capacity=3 * rows).build(spec(), 3, CPU, torch.Generator())
    for transition in added:
        store.add(transition)
    found = single_steps(store.state_dict(), GAMMA)
    for name in ("obs", "action", "signals", "next_obs", "terminated"):
        torch.testing.assert_close(getattr(found, name), torch.stack([getattr(t, name) for t in added[-rows:]]))
    ended = torch.stack([t.truncated for t in added[-rows:]])
    assert torch.equal(found.truncated[:-1], ended[:-1]) and (found.truncated | found.terminated)[-1].all()
